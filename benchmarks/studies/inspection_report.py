# SPDX-License-Identifier: Apache-2.0
"""Tables and the figure of the studies ``inspection`` and ``differential``, for the docs."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from benchmarks.studies.inspection_rates import (
    ALL,
    CLEAN,
    COMBINED,
    EVERY,
    WITH_WAVE,
    family,
    scored,
)
from benchmarks.studies.roc import auc
from d3fast.attacks import ATTACKS
from d3fast.results.format import MISSING, fixed, mean, percent, shortest, value_range
from d3fast.results.jobs import Row
from d3fast.results.plot import AMBER, BLUE, GREEN, GREY, INK, ORANGE, PINK, STYLE
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown

FIGURE = Path(__file__).resolve().parents[2] / "docs" / "inspect-roc.png"
_COLOURS = (INK, BLUE, ORANGE, GREEN, PINK, AMBER, GREY)
_DASHES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)), ":", (0, (1, 1)), (0, (6, 2)))


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


def areas_table(results: Results, name: str) -> str:
    """Return one line per attack: the area under the ROC curve of each detector and of all.

    Where a detector looked at fewer models than the others, its cell says at how many.

    Args:
        results: results of the study.
        name: name of the set of models.
    """
    models = [r for r in results.rows if r["kind"] == "inspected" and family(r) == name]
    areas = [row for row in results.rows if row["kind"] == "auc" and row["set"] == name]
    named = dict.fromkeys(row["sign"] for row in areas)
    signs = [sign for sign in named if sign not in COMBINED]
    more = [WITH_WAVE] if WITH_WAVE in named else []
    lines = []
    for attack in dict.fromkeys(row["attack"] for row in areas):
        own = {row["sign"]: row for row in areas if row["attack"] == attack}
        whole, asr = own[ALL], [r["asr"] for r in models if r["attack"] == attack]
        known = attack in (EVERY, *ATTACKS) or any(asr)
        last = own[more[0]] if more else whole
        lines.append(
            [
                attack,
                str(whole["models"]),
                percent(mean(asr), 0),
                *(_area(own.get(sign), whole["models"]) for sign in signs),
                _interval(whole),
                *(_interval(own[sign]) for sign in more),
                *map(str, last["found"]),
                str(last["named"]) if known else MISSING,
                str(last["flagged"]),
            ]
        )
    alarms = [f"found at {percent(rate, 0)} %" for rate in areas[0]["alarms"]]
    combined = ["all four (95 %)", *("with wave (95 %)" for _ in more)]
    heads = ["", "models", "ASR %", *signs, *combined, *alarms, "named", "flagged"]
    return to_markdown(text_table(heads, lines))


def _interval(row: Row) -> str:
    if row["auc"] is None:
        return MISSING
    return f"{_two(row['auc'])} ({value_range(row['low'], row['high'], 2)})"


def _two(area: float) -> str:
    return fixed(area, 2)


def _area(row: Row | None, models: int) -> str:
    if row is None or row["auc"] is None:
        return MISSING
    few = "" if row["models"] == models else f" (of {row['models']})"
    return f"{_two(row['auc'])}{few}"


@matplotlib.rc_context(STYLE)
def curves_figure(curves: Mapping[str, tuple[Sequence[bool], Sequence[float]]]) -> Figure:
    """Draw ROC curves in one figure.

    Args:
        curves: by name, which models are backdoored and what their scores are.
    """
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    looks = cycle(zip(_COLOURS, _DASHES, strict=True))
    for name, (truth, scores) in curves.items():
        alarms, found, _ = roc_curve(truth, scores)
        colour, dashes = next(looks)
        look: Any = {"color": colour, "linestyle": dashes}
        axes.plot(100 * alarms, 100 * found, label=name, **look)
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
    axes.set(xlabel="clean models flagged, %", ylim=(0, 102), xlim=(-1, 100))
    axes.set_title("Backdoored models found, %", loc="left")
    axes.legend(frameon=False, loc="lower right")
    return figure


def roc_figure(rows: Sequence[Row], name: str) -> Figure:
    """Draw the ROC curve of every detector and of all together, over every attack.

    Args:
        rows: of the models.
        name: name of the set of models.
    """
    own = [row for row in rows if family(row) == name]
    curves = {}
    for sign in (ALL, *dict.fromkeys(sign for row in own for sign in row["signs"])):
        scores = scored(own, sign)
        used = [at for at in scores if own[at]["attack"] in (CLEAN, *ATTACKS)]
        truth = [own[at]["attack"] != CLEAN for at in used]
        curves["all four" if sign == ALL else sign] = truth, [scores[at].score for at in used]
    return curves_figure(curves)


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


def tries_table(results: Results) -> str:
    """Return one line per data set, variant and attack: the scores, and how often it is named."""
    rows = [row for row in results.rows if row["kind"] == "try"]
    lines = []
    for data, variant in dict.fromkeys((row["set"], row["variant"]) for row in rows):
        mine = [row for row in rows if (row["set"], row["variant"]) == (data, variant)]
        clean = [row["value"] for row in mine if row["attack"] == CLEAN]
        for attack in dict.fromkeys(row["attack"] for row in mine):
            own = [row for row in mine if row["attack"] == attack]
            values = [row["value"] for row in own]
            named = sum(row["named"] == row["target"] for row in own)
            known = [f"{named} of {len(own)}", fixed(auc(values, clean), 2) if clean else MISSING]
            shown = [MISSING, MISSING] if attack == CLEAN else known
            cost = fixed(mean(row["cpu_seconds"] for row in own))
            scores = ", ".join(map(fixed, sorted(values)))
            lines.append([data, variant, attack, scores, *shown, cost])
    return to_markdown(
        text_table(["", "variant", "", "scores", "target named", "AUC", "CPU s"], lines)
    )
