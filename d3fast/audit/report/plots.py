# SPDX-License-Identifier: Apache-2.0
"""Figures of a case: the course of the repair, and how far every layer went."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from d3fast.io.untrusted import printable
from d3fast.results.plot import BLUE, GREY, ORANGE, STYLE

Row = Mapping[str, Any]

_MOST_LAYERS = 40


def _line(rows: Sequence[Row], key: str, scale: float = 1.0) -> list[float]:
    return [float("nan") if row[key] is None else scale * row[key] for row in rows]


def _lines(rows: Sequence[Row], keys: Mapping[str, str], scale: float = 1.0) -> Figure:
    """One to two lines over the epochs; they are named where there are two."""
    looks = ((BLUE, "-", "o"), (ORANGE, "--", "s"))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.0, 2.9), layout="constrained")
        axes = figure.subplots()
        at = [row["epoch"] for row in rows]
        marks = 3 if len(rows) <= 60 else 0
        for (key, label), (colour, dashes, marker) in zip(keys.items(), looks, strict=False):
            axes.plot(
                at,
                _line(rows, key, scale),
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=marks,
                linewidth=1.3,
                label=label,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch of the repair")
        if len(keys) > 1:
            axes.legend(frameon=False)
    return figure


def course_figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Loss, accuracy, distance and lambda over the epochs, by what each shows.

    Args:
        rows: of kind ``epoch``; what no row has is not drawn.

    Example:
        >>> row = {"epoch": 1, "loss": 0.5, "accuracy": 0.9, "val_accuracy": None,
        ...        "distance": 0.1, "clean_weight": None}
        >>> list(course_figures([row]))
        ['Answered correctly, %', 'Loss, nats', 'Distance of the pushed weights']
    """
    rows = sorted(rows, key=lambda row: row["epoch"])
    # More points than pixels are of no use to anybody.
    rows = rows[:: 1 + len(rows) // 1000]

    def has(key: str) -> bool:
        return any(row[key] is not None for row in rows)

    accuracies = {"accuracy": "samples of the repair"}
    if has("val_accuracy"):
        accuracies["val_accuracy"] = "held-out samples"
    made = {"Answered correctly, %": _lines(rows, accuracies, 100)}
    made["Loss, nats"] = _lines(rows, {"loss": "loss"})
    if has("distance"):
        made["Distance of the pushed weights"] = _lines(rows, {"distance": "distance"})
    if has("clean_weight"):
        made["Weight of the clean loss, λ"] = _lines(rows, {"clean_weight": "λ"})
    return made


def layer_figure(layers: Sequence[tuple[str, float | None]]) -> Figure:
    """How far each layer went, in percent of the norm it had, a bar per layer from top to bottom.

    Args:
        layers: name and relative distance, in the model's order; of more than 40 those that went
            furthest. Layers that started at 0 have no such number and are left out.

    Example:
        >>> figure = layer_figure([("stem.weight", 0.1), ("fc.bias", None)])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['stem.weight']
    """
    known = [(at, name, value) for at, (name, value) in enumerate(layers) if value is not None]
    furthest = sorted(known, key=lambda layer: -layer[2])[:_MOST_LAYERS]
    shown = sorted(furthest)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(7.6, 0.6 + 0.19 * len(shown)), layout="constrained")
        axes = figure.subplots()
        places = range(len(shown))
        bars = axes.barh(places, [100 * value for _, _, value in shown], height=0.62, color=BLUE)
        axes.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=7.5, color=GREY)
        # A dollar sign would make mathematics of a name.
        names = [printable(name, 50).replace("$", "＄") for _, name, _ in shown]
        axes.set_yticks(places, names, fontsize=7.5)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(axis="x", color=GREY, alpha=0.2, linewidth=0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("% of the layer’s norm")
    return figure
