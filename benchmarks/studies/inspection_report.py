# SPDX-License-Identifier: Apache-2.0
"""Tables of the study ``inspection`` for the documentation."""

from d3fast.results.format import MISSING, fixed, mean, percent, shortest, value_range
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown

ALL = "all"


def inspect_table(results: Results, name: str) -> str:
    """Return one line per attack and kind of clean model: models flagged by each detector.

    Args:
        results: results of the study.
        name: name of the set of models.
    """
    rows = [row for row in results.rows if row["set"] == name]
    rates = [row for row in rows if row["kind"] == "rate"]
    signs = [sign for sign in dict.fromkeys(row["sign"] for row in rates) if sign != ALL]
    lines = []
    for attack in dict.fromkeys(row["attack"] for row in rates):
        own = {row["sign"]: row for row in rates if row["attack"] == attack}
        whole = own[ALL]
        models = [r for r in rows if r["kind"] == "inspected" and r["attack"] == attack]
        lines.append(
            [
                attack,
                str(whole["models"]),
                percent(mean(row["asr"] for row in models), 0),
                *(str(own[sign]["found"]) for sign in signs),
                f"{whole['found']} ({value_range(100 * whole['low'], 100 * whole['high'], 0)} %)",
                MISSING if whole["named"] is None else str(whole["named"]),
            ]
        )
    return to_markdown(
        text_table(["", "models", "ASR %", *signs, "any (95 % interval)", "target named"], lines)
    )


def rates_table(results: Results) -> str:
    """Return detections and false alarms of each rate on the development models."""
    rows = [row for row in results.rows if row["kind"] == "choice"]
    lines = [
        [
            shortest(row["rate"]),
            fixed(row["threshold"]),
            *(
                f"{row[f'{kind}_found']} of {row[f'{kind}_models']}"
                for kind in ("backdoored", "clean")
            ),
        ]
        for row in rows
    ]
    return to_markdown(
        text_table(["rate", "threshold", "backdoored found", "clean flagged"], lines)
    )
