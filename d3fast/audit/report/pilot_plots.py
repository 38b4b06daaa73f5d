# SPDX-License-Identifier: Apache-2.0
"""Figures of ``d3fast pilot``: accuracy lost against what is left of the attack, sensitivity.

Both are made from the rows of pilot.json. Runs of the last rung are blue, those of the rungs
before are grey: fewer epochs, so not to be compared with the blue ones.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3fast.results.plot import BLUE, GREY, INK, ORANGE, STYLE

Row = Mapping[str, Any]

NAMES = {
    "distance_weight": "distance weight w",
    "clean_weight": "clean weight λ",
    "epsilon": "ε, nats",
}
_SMALLEST = 5.0  # percent; a range of less would blow up single images


def _of(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def _rate(row: Row) -> float | None:
    """The ASR that counts: of the trigger that was given, else of the inverted ones."""
    return row["inversion_asr"] if row["asr"] is None else row["asr"]


def _points(rows: Sequence[Row], start: float) -> list[tuple[float, float]]:
    """(ACC drop in points, ASR in percent) of those that have both."""
    rates = [(row, _rate(row)) for row in rows]
    return [
        (round(100 * (start - row["acc"]), 6) + 0.0, 100 * rate)
        for row, rate in rates
        if rate is not None
    ]


def _draw_runs(axes: Axes, points: Sequence[tuple[float, float]], last: bool) -> None:
    """One marker per place, and how many runs ended there."""
    colour, size = (BLUE, 34) if last else (GREY, 14)
    for (x, y), count in Counter(points).items():
        axes.scatter(x, y, s=size, color=colour, zorder=4 if last else 2, linewidth=0)
        if count > 1:
            axes.annotate(
                f"×{count}", (x, y), (5, 5), textcoords="offset points", fontsize=7, color=colour
            )


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """The Pareto front: between its settings nothing better was found than their corners."""
    front = sorted(set(points))
    axes.step(
        [x for x, _ in front],
        [y for _, y in front],
        where="post",
        color=BLUE,
        linewidth=1.2,
        zorder=3,
    )


def pareto_figure(rows: Sequence[Row]) -> Figure:
    """Every run as a point, the front of the last rung joined, the recommended setting marked.

    Args:
        rows: of pilot.json: trials, and the suspect's and the recommendation where they are there.
    """
    trials = _of(rows, "trial")
    suspect = next(iter(_of(rows, "suspect")), {})
    start = suspect.get("acc")
    if start is None:
        start = max(row["acc"] for row in trials)
    end = max(row["rung"] for row in trials)
    last = [row for row in trials if row["rung"] == end]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.4), layout="constrained")
        axes = figure.subplots()
        _draw_runs(axes, _points([row for row in trials if row["rung"] < end], start), last=False)
        _draw_front(axes, _points([row for row in last if row["pareto"]], start))
        _draw_runs(axes, _points(last, start), last=True)
        chosen = {row["trial"] for row in _of(rows, "recommendation")}
        for x, y in _points([row for row in last if row["trial"] in chosen], start):
            axes.scatter(x, y, s=150, facecolor="none", edgecolor=ORANGE, linewidth=1.8, zorder=5)
        _describe(axes, trials, suspect)
        _explain(figure, axes, sorted({row["epochs"] for row in last})[-1], bool(chosen))
    return figure


def _describe(axes: Axes, trials: Sequence[Row], suspect: Row) -> None:
    given = any(row["asr"] is not None for row in trials)
    kind = "the trigger that was given" if given else "inverted triggers"
    axes.set_title(f"Success of {kind}, %", loc="left")
    axes.set_xlabel("accuracy lost on held-out samples, points")
    top = max([_SMALLEST, *(100 * (_rate(row) or 0.0) for row in trials)])
    axes.set_ylim(-0.06 * top, 1.15 * top)
    axes.margins(x=0.1)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -1.0), max(high, 1.0))
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    rate = _rate(suspect) if "asr" in suspect and "inversion_asr" in suspect else None
    if rate is not None:
        axes.annotate(
            f"suspect: {100 * rate:.0f} %",
            (0, 1),
            (4, -2),
            va="top",
            fontsize=8,
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
        )


def _explain(figure: Figure, axes: Axes, epochs: int, chosen: bool) -> None:
    nothing: tuple[list[float], list[float]] = ([], [])
    axes.scatter(*nothing, s=34, color=BLUE, linewidth=0, label=f"{epochs} epochs, front joined")
    axes.scatter(*nothing, s=14, color=GREY, linewidth=0, label="fewer epochs")
    if chosen:
        axes.scatter(
            *nothing, s=90, facecolor="none", edgecolor=ORANGE, linewidth=1.8, label="recommended"
        )
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)


def sensitivity_figure(rows: Sequence[Row]) -> Figure:
    """ACC and inversion-based ASR by the value of each parameter: means, and single runs.

    Args:
        rows: of pilot.json: sensitivities, and trials, of which the first rung is shown.
    """
    matters = _of(rows, "sensitivity")
    trials = [row for row in _of(rows, "trial") if row["rung"] == 0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.2 * len(matters) + 0.8, 4), layout="constrained")
        grid = figure.subplots(2, len(matters), sharex="col", sharey="row", squeeze=False)
        titles = (("acc", "ACC, %", BLUE, "o"), ("inversion_asr", "ASR, inverted, %", ORANGE, "s"))
        for lines, (key, title, colour, marker) in zip(grid, titles, strict=True):
            for axes, row in zip(lines, matters, strict=True):
                _draw_values(axes, row, trials, key, colour, marker)
            lines[0].set_title(title, loc="left")
        for axes in grid[1]:
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.set_ylim(top=max(_SMALLEST, axes.get_ylim()[1]))
        for axes, row in zip(grid[1], matters, strict=True):
            axes.set_xlabel(NAMES.get(row["parameter"], row["parameter"]))
    return figure


def _draw_values(
    axes: Axes, row: Row, trials: Sequence[Row], key: str, colour: str, marker: str
) -> None:
    """One parameter: grey dots are runs, the line joins their means."""
    places = range(len(row["values"]))
    for place, value in zip(places, row["values"], strict=True):
        runs = [r[key] for r in trials if r.get(row["parameter"]) == value and r[key] is not None]
        axes.scatter(
            [place] * len(runs),
            [100 * run for run in runs],
            s=10,
            color=GREY,
            alpha=0.6,
            linewidth=0,
        )
    means = [float("nan") if mean is None else 100 * mean for mean in row[key]]
    axes.plot(places, means, color=colour, marker=marker, markersize=5, linewidth=1.2)
    axes.set_xticks(places, [f"{value:g}" for value in row["values"]])
    axes.margins(x=0.2)
