# SPDX-License-Identifier: Apache-2.0
"""The figure of the relearning test: ASR over the number of poisoned samples, a line per model.

Colour, dashes and marker together distinguish up to 12 models; the legend has the order of the
areas, the largest first.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from statistics import fmean
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3fast.benchmark.labels import CLEAN_MODEL
from d3fast.results.format import fixed, mean
from d3fast.results.plot import AMBER, BLUE, GREEN, GREY, INK, ORANGE, PINK, SKY, STYLE
from d3fast.results.schema.benchmark import RelearningRow

# Okabe and Ito without their yellow, which is hard to see on white.
_COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, INK)
_DASHES = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))
_MARKERS = "osD^vP*X<>h"
_MOST_BANDS = 6  # models; with more of them, overlapping bands would hide each other

Curves = Mapping[str, Sequence[RelearningRow]]


def _shared_ks(curves: Curves) -> list[int]:
    found = {run.ks for runs in curves.values() for run in runs}
    if len(found) != 1:
        raise ValueError(f"all runs must have the same ks, got {sorted(found)}")
    return list(found.pop())


def _draw(axes: Axes, ks: list[int], runs: Sequence[RelearningRow], look: Any, band: bool) -> None:
    columns = zip(*(run.asr for run in runs), strict=True)
    rates = [[100 * value for value in column] for column in columns]
    axes.plot(ks, [fmean(column) for column in rates], markersize=4, linewidth=1.4, **look)
    if band and len(runs) > 1:
        lows, highs = [min(column) for column in rates], [max(column) for column in rates]
        axes.fill_between(ks, lows, highs, color=look["color"], alpha=0.12, linewidth=0)


def _number_axis(axes: Axes, ks: list[int]) -> None:
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.set_xticks(ks, [f"{k}\nclean" if k == 0 else str(k) for k in ks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(-0.2, 1.2 * ks[-1])  # margins of a symlog axis are as wide as a decade
    axes.set_xlabel("poisoned samples")
    axes.set_ylim(-3, 103)


@matplotlib.rc_context(STYLE)
def relearning_figure(curves: Curves, floor: float) -> Figure:
    """Draw the ASR over the number of poisoned samples: mean over seeds, range as a band.

    Args:
        curves: rows of the relearning test by model, one per seed. The legend shows the mean
            ``area`` of each model; the clean model is grey and dotted. Of many models only the
            first and the clean model have a band.
        floor: ASR of the clean model before any fine-tuning, a fraction.

    Raises:
        ValueError: nothing to draw; runs over different ks.

    Example:
        >>> run = RelearningRow(defense="d3", seed=0, attack="badnets", ks=(0, 1, 10),
        ...                     asr=(0.0, 0.2, 0.9), area=0.55)
        >>> figure = relearning_figure({"D3": [run, run]}, floor=0.02)
        >>> figure.axes[0].get_xlabel()
        'poisoned samples'
    """
    ks = _shared_ks(curves)
    looks = (
        {"color": colour, "linestyle": dashes, "marker": marker}
        for colour, dashes, marker in zip(cycle(_COLOURS), cycle(_DASHES), cycle(_MARKERS))
    )
    figure = Figure(figsize=(7.2, 4), layout="constrained")
    axes = figure.subplots()
    areas = {}
    for name, runs in curves.items():
        grey = {"color": GREY, "linestyle": ":", "marker": "."}
        look: Any = grey if name == CLEAN_MODEL else next(looks)
        area = mean(run.area for run in runs) or 0.0
        band = len(curves) <= _MOST_BANDS or name in (CLEAN_MODEL, next(iter(curves)))
        _draw(axes, ks, runs, {**look, "label": f"{name}  {fixed(area, 2)}"}, band)
        areas[axes.lines[-1]] = area
    level = axes.axhline(100 * floor, color=GREY, linewidth=0.8, label="floor")
    _number_axis(axes, ks)
    axes.set_title("Attack success rate after fine-tuning, %", loc="left")
    handles = sorted(areas, key=lambda line: -areas[line])
    figure.legend(
        handles=[*handles, level],
        loc="outside right upper",
        frameon=False,
        handlelength=3.6,
        title="area under the curve",
        alignment="left",
    )
    return figure
