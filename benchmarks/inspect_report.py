# SPDX-License-Identifier: Apache-2.0
"""Tables of ``benchmarks.inspect_study`` for the documentation."""

from collections.abc import Mapping, Sequence
from typing import Any

from d3fast.results.store import Results
from d3fast.results.table import markdown

Row = Mapping[str, Any]
ALL = "all"


def inspect_table(results: Results, name: str) -> str:
    """One line per attack and per kind of clean model: on how many each sign was raised.

    Args:
        results: of the study.
        name: the set of models.
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
                _mean(models, "asr"),
                *(str(own[sign]["found"]) for sign in signs),
                f"{whole['found']} ({100 * whole['low']:.0f}–{100 * whole['high']:.0f} %)",
                "–" if whole["named"] is None else str(whole["named"]),
            ]
        )
    return markdown(["", "models", "ASR %", *signs, "any (95 % interval)", "target named"], lines)


def _mean(rows: Sequence[Row], key: str) -> str:
    values = [row[key] for row in rows if row[key] is not None]
    return f"{100 * sum(values) / len(values):.0f}" if values else "–"


def rates_table(results: Results) -> str:
    """What each rate of false alarms would have given on the development models and on the rest."""
    rows = [row for row in results.rows if row["kind"] == "choice"]
    lines = [
        [
            f"{row['rate']:g}",
            f"{row['threshold']:.1f}",
            *(
                f"{row[f'{kind}_found']} of {row[f'{kind}_models']}"
                for kind in ("backdoored", "clean")
            ),
        ]
        for row in rows
    ]
    return markdown(["rate", "threshold", "backdoored found", "clean raised"], lines)
