# SPDX-License-Identifier: Apache-2.0
"""Figures of the benchmark: heat map, ACC against ASR, DER ranking, ablations, relearning.

D3 is blue everywhere; colour and marker together distinguish the other defences.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from d3fast.benchmark.labels import D3, NONE
from d3fast.benchmark.report.numbers import (
    EFFECTS,
    ByValue,
    Grid,
    ablations,
    both_grids,
    effect_of,
    is_numeric,
    relearning,
)
from d3fast.benchmark.report.relearning_plot import relearning_figure
from d3fast.benchmark.report.tables import SHADES, shade
from d3fast.results.format import fixed, percent, shortest
from d3fast.results.plot import AMBER, BLUE, GREEN, GREY, INK, ORANGE, PAPER, PINK, SKY, STYLE
from d3fast.results.schema.benchmark import GridRow

_OTHERS = [
    (colour, marker) for marker in ("s", "^") for colour in (ORANGE, GREEN, PINK, AMBER, SKY, GREY)
]


def _looks(names: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return colour and marker by defence, the same in every figure of one grid."""
    others = [name for name in sorted(names) if name != D3]
    looks = {name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(others)}
    return {D3: (BLUE, "o"), **looks}


def _blend(level: int) -> tuple[float, float, float]:
    """Return the colour of a shade: pale blue at level 0, then paler to full orange."""
    steps = LinearSegmentedColormap.from_list("lift", [PAPER, ORANGE])
    return steps(0.08 + 0.87 * level / len(SHADES))[:3] if level else (0.87, 0.93, 0.97)


@matplotlib.rc_context({**STYLE, "axes.grid": False})
def heat_map_figure(grid: Grid, title: str) -> Figure:
    """Draw the lift in points, attacks x defences, in the shades of the page's table.

    Args:
        grid: of one setting.
        title: above the figure.
    """
    names = (*grid.defenses, NONE)
    figure = Figure(
        figsize=(1.9 + 0.66 * len(names), 1.5 + 0.34 * len(grid.attacks)), layout="constrained"
    )
    axes = figure.subplots()
    for y, attack in enumerate(grid.attacks):
        for x, name in enumerate(names):
            effect = grid.mean(attack, name, grid.effect)
            level = shade(effect)
            if level is not None:
                axes.fill_between(
                    [x - 0.47, x + 0.47], y - 0.45, y + 0.45, linewidth=0, color=_blend(level)
                )
            axes.text(x, y, percent(effect), ha="center", va="center", fontsize=8.5)
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(grid.attacks) - 0.5, -0.5))
    axes.set_xticks(range(len(names)), names, rotation=35, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(grid.attacks)), grid.attacks)
    axes.xaxis.tick_top()
    axes.spines[:].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


@matplotlib.rc_context(STYLE)
def scatter_figure(grid: Grid) -> Figure:
    """Draw ACC against lift: a small mark per attack x defence, a large one for the mean.

    The scale is linear below one point, so that zero and negative values fit.

    Args:
        grid: of one setting.
    """
    looks = _looks(grid.defenses)
    figure = Figure(figsize=(6.6, 4.4), layout="constrained")
    axes = figure.subplots()
    for order, name in enumerate(reversed(grid.defenses), start=2):
        colour, marker = looks[name]
        pairs = [
            (grid.mean(attack, name, "acc"), grid.mean(attack, name, grid.effect))
            for attack in grid.attacks
        ]
        points = [(100 * a, 100 * e) for a, e in pairs if a is not None and e is not None]
        if not points:
            continue
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=11, color=colour, marker=marker, alpha=0.4, linewidths=0, zorder=order)
        axes.scatter(
            sum(x) / len(x),
            sum(y) / len(y),
            s=62,
            color=colour,
            marker=marker,
            edgecolors=PAPER,
            linewidths=0.9,
            label=name,
            zorder=order + 20,
        )
    axes.set_yscale("symlog", linthresh=1, linscale=0.6)
    axes.set_yticks([-1, 0, 1, 10, 100])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: fixed(value, 0)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.axhline(0, color=GREY, linewidth=0.9, linestyle=":")
    axes.set(xlabel="ACC, %", ylabel=f"{EFFECTS[grid.effect]}, points")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper", frameon=False)
    return figure


@matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"})
def der_figure(grid: Grid) -> Figure:
    """Draw the mean DER by defence, best on top: range over seeds as a bar, attacks as dots.

    Args:
        grid: of one setting.
    """
    names = [name for name in grid.defenses if grid.overall(name, "der") is not None]
    figure = Figure(figsize=(6.6, 0.9 + 0.3 * max(len(names), 3)), layout="constrained")
    axes = figure.subplots()
    for y, name in enumerate(names):
        colour = BLUE if name == D3 else GREY
        dots = [grid.mean(attack, name, "der") for attack in grid.attacks]
        shown = [100 * value for value in dots if value is not None]
        axes.scatter(shown, [y] * len(shown), s=14, color=colour, alpha=0.4, linewidths=0)
        seeds = [100 * value for value in grid.seed_means(name, "der")]
        middle = sum(seeds) / len(seeds)
        axes.plot(
            [min(seeds), max(seeds)],
            [y, y],
            color=colour,
            linewidth=4,
            alpha=0.6,
            solid_capstyle="butt",
        )
        axes.scatter(middle, y, s=58, color=colour, edgecolors=PAPER, zorder=3)
        axes.text(
            1.015,
            y,
            fixed(middle),
            transform=axes.get_yaxis_transform(),
            va="center",
            color=BLUE if name == D3 else INK,
        )
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.4, -0.6), xlabel="DER, %")
    axes.spines["left"].set_visible(False)
    return figure


@matplotlib.rc_context(STYLE)
def ablation_figure(by_defense: Mapping[str, ByValue], factor: str) -> Figure:
    """Draw ACC and lift over the values of one factor, means over models with their range.

    Args:
        by_defense: rows by defence and value, as ``ablations`` gives them.
        factor: its name.
    """
    looks = _looks(list(by_defense))
    values = list(dict.fromkeys(value for by_value in by_defense.values() for value in by_value))
    effect = effect_of(
        row for by_value in by_defense.values() for rows in by_value.values() for row in rows
    )
    figure = Figure(figsize=(6.6, 2.6), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, key, title in (
        (panels[0], "acc", "ACC, %"),
        (panels[1], effect, f"{EFFECTS[effect]}, points"),
    ):
        for name, by_value in by_defense.items():
            if name != NONE:
                _draw_values(axes, values, by_value, key, name, looks[name])
        axes.set_title(title, loc="left", fontsize=9)
        axes.set_xlabel(factor)
    if len(by_defense) > 1:
        panels[1].legend(frameon=False)
    return figure


def _draw_values(
    axes: Axes, values: list[Any], by_value: ByValue, key: str, name: str, look: tuple[str, str]
) -> None:
    found = {
        value: [100 * share for row in rows if (share := getattr(row, key)) is not None]
        for value, rows in by_value.items()
    }
    measured = {value: numbers for value, numbers in found.items() if numbers}
    numeric = is_numeric(values)
    if not measured:
        return
    x = [value if numeric else values.index(value) for value in measured]
    means = [sum(numbers) / len(numbers) for numbers in measured.values()]
    lows, highs = ([f(numbers) for numbers in measured.values()] for f in (min, max))
    colour, marker = look
    style = "-" if numeric else ""
    axes.plot(x, means, f"{marker}{style}", color=colour, markersize=5, label=name)
    if numeric:
        axes.fill_between(x, lows, highs, color=colour, alpha=0.15, linewidth=0)
        if min(values) > 0 and max(values) >= 10 * min(values):
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(values, list(map(shortest, values)))
        axes.set_xticks([], minor=True)
    else:
        axes.vlines(x, lows, highs, color=colour, linewidth=4, alpha=0.3)
        axes.set_xticks(range(len(values)), [str(value) for value in values])
        axes.set_xlim(-0.5, len(values) - 0.5)


def ablation_figures(rows: Sequence[GridRow]) -> dict[str, Figure]:
    """Return one figure per factor."""
    return {
        factor: ablation_figure(by_defense, factor)
        for factor, by_defense in ablations(rows).items()
    }


def relearning_figures(rows: Sequence[GridRow]) -> dict[str, Figure]:
    """Return one figure per attack: ASR over the number of poisoned samples."""
    plain, adaptive = both_grids(rows)
    figures = {}
    for attack, curves in relearning(rows).items():
        if D3 in curves:
            curves = {D3: curves[D3], **curves}  # the first one is blue
        floor = plain.floor(attack) or adaptive.floor(attack) or 0.0
        figures[attack] = relearning_figure(curves, floor)
    return figures
