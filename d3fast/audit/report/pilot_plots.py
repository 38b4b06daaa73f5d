# SPDX-License-Identifier: Apache-2.0
"""Figures of ``d3fast pilot``: accuracy lost against lift, and the effect of each option.

Trials of the last rung are blue. Those of earlier rungs are grey: they had fewer epochs and cannot
be compared with the blue ones.
"""

from collections import Counter
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3fast.audit.report.documents import PilotReport
from d3fast.audit.report.words import figure_label
from d3fast.results.format import percent, shortest
from d3fast.results.plot import BLUE, GREY, INK, ORANGE, STYLE
from d3fast.results.schema.pilot import HeldOutFields, SensitivityRow, TrialRow

_NAMES = {
    "distance_weight": "distance weight w",
    "clean_weight": "clean weight λ",
    "epsilon": "ε, nats",
}
_SMALLEST = 5.0  # percent; a smaller range would enlarge single samples


def _points(trials: Sequence[TrialRow], start: float) -> list[tuple[float, float]]:
    """Return (accuracy lost, what the attack still does), in points, of the trials with both."""
    return [
        (round(100 * (start - trial.acc), 6) + 0.0, 100 * left)
        for trial in trials
        if (left := _left(trial)) is not None
    ]


def _left(row: HeldOutFields) -> float | None:
    """Return the lift that ranks a model, or the ASR in files of release 0.1, which lack it."""
    return row.attack_rate if row.attack_lift is None else max(0.0, row.attack_lift)


def _draw_trials(axes: Axes, points: Sequence[tuple[float, float]], last: bool) -> None:
    """Draw one marker per point, with the number of trials at it."""
    colour, size = (BLUE, 34) if last else (GREY, 14)
    for (x, y), count in Counter(points).items():
        axes.scatter(x, y, s=size, color=colour, zorder=4 if last else 2, linewidth=0)
        if count > 1:
            axes.annotate(
                f"×{count}", (x, y), (5, 5), textcoords="offset points", fontsize=7, color=colour
            )


def _draw_front(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """Draw the Pareto front as steps: nothing better was measured between its corners."""
    front = sorted(set(points))
    axes.step(
        [x for x, _ in front],
        [y for _, y in front],
        where="post",
        color=BLUE,
        linewidth=1.2,
        zorder=3,
    )


def pareto_figure(pilot: PilotReport) -> Figure:
    """Draw every trial, the Pareto front of the last rung and the recommended setting."""
    trials, suspect = pilot.trials, pilot.suspect
    start = max(trial.acc for trial in trials) if suspect is None else suspect.acc
    last = [trial for trial in trials if trial.rung == pilot.last_rung]
    earlier = [trial for trial in trials if trial.rung < pilot.last_rung]
    chosen = pilot.recommendation
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.4), layout="constrained")
        axes = figure.subplots()
        _draw_trials(axes, _points(earlier, start), last=False)
        _draw_front(axes, _points([trial for trial in last if trial.pareto], start))
        _draw_trials(axes, _points(last, start), last=True)
        if chosen is not None:
            own = [trial for trial in last if trial.trial == chosen.trial]
            for x, y in _points(own, start):
                axes.scatter(
                    x, y, s=150, facecolor="none", edgecolor=ORANGE, linewidth=1.8, zorder=5
                )
        _label_axes(axes, pilot)
        _add_legend(figure, axes, max(trial.epochs for trial in last), chosen is not None)
    return figure


def _label_axes(axes: Axes, pilot: PilotReport) -> None:
    kind = "the known trigger" if pilot.trigger_known else "inverted triggers"
    ranked = all(trial.attack_lift is not None for trial in pilot.trials)
    axes.set_title(
        f"Lift of {kind}, points" if ranked else f"Success rate of {kind}, %", loc="left"
    )
    axes.set_xlabel("accuracy lost on held-out samples, points")
    top = max([_SMALLEST, *(100 * (_left(trial) or 0.0) for trial in pilot.trials)])
    axes.set_ylim(-0.06 * top, 1.15 * top)
    axes.margins(x=0.1)
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, -1.0), max(high, 1.0))
    axes.axvline(0, color=INK, linewidth=0.8, linestyle=":")
    rate = None if pilot.suspect is None else _left(pilot.suspect)
    if rate is not None:
        axes.annotate(
            f"suspect: {percent(rate, 0)} %",
            (0, 1),
            (4, -2),
            va="top",
            fontsize=8,
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
        )


def _add_legend(figure: Figure, axes: Axes, epochs: int, chosen: bool) -> None:
    nothing: tuple[list[float], list[float]] = ([], [])
    axes.scatter(*nothing, s=34, color=BLUE, linewidth=0, label=f"{epochs} epochs, Pareto front")
    axes.scatter(*nothing, s=14, color=GREY, linewidth=0, label="fewer epochs")
    if chosen:
        axes.scatter(
            *nothing, s=90, facecolor="none", edgecolor=ORANGE, linewidth=1.8, label="recommended"
        )
    figure.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=8)


def sensitivity_figure(pilot: PilotReport) -> Figure:
    """Draw mean ACC and ASR of inverted triggers by the value of each option, and single trials.

    Only trials of the first rung are shown: no choice has thinned them out.
    """
    sensitivities = pilot.sensitivities
    trials = [trial for trial in pilot.trials if trial.rung == 0]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.2 * len(sensitivities) + 0.8, 4), layout="constrained")
        grid = figure.subplots(2, len(sensitivities), sharex="col", sharey="row", squeeze=False)
        titles = (("acc", "ACC, %", BLUE, "o"), ("inversion_asr", "ASR, inverted, %", ORANGE, "s"))
        for line, (field, title, colour, marker) in zip(grid, titles, strict=True):
            for axes, row in zip(line, sensitivities, strict=True):
                _draw_values(axes, row, trials, field, colour, marker)
            line[0].set_title(title, loc="left")
        for axes in grid[1]:
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.set_ylim(top=max(_SMALLEST, axes.get_ylim()[1]))
        for axes, row in zip(grid[1], sensitivities, strict=True):
            axes.set_xlabel(_NAMES.get(row.parameter) or figure_label(row.parameter))
    return figure


def _draw_values(
    axes: Axes,
    row: SensitivityRow,
    trials: Sequence[TrialRow],
    field: str,
    colour: str,
    marker: str,
) -> None:
    """Draw one option: grey dots are trials, the line joins their means."""
    for position, value in enumerate(row.values):
        own = [trial for trial in trials if getattr(trial, row.parameter, None) == value]
        rates = [rate for trial in own if (rate := getattr(trial, field)) is not None]
        axes.scatter(
            [position] * len(rates),
            [100 * rate for rate in rates],
            s=10,
            color=GREY,
            alpha=0.6,
            linewidth=0,
        )
    means = [float("nan") if mean is None else 100 * mean for mean in getattr(row, field)]
    axes.plot(range(len(means)), means, color=colour, marker=marker, markersize=5, linewidth=1.2)
    axes.set_xticks(range(len(means)), [shortest(value) for value in row.values])
    axes.margins(x=0.2)
