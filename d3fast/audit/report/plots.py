# SPDX-License-Identifier: Apache-2.0
"""Figures of a repair: its epochs, and the displacement of each layer."""

from collections.abc import Mapping, Sequence
from functools import partial

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from d3fast.audit.report.words import figure_label
from d3fast.io.untrusted import printable
from d3fast.results.format import shortest
from d3fast.results.plot import BLUE, GREY, ORANGE, STYLE
from d3fast.results.schema.audit import EpochRow, LayerDistance

MAX_LAYERS = 40
_MAX_POINTS = 1000
_TITLES = {
    "loss": "Loss, nats",
    "distance": "Distance of the tracked weights",
    "clean_weight": "Weight of the clean loss, λ",
}


Curve = tuple[list[int], list[float]]  # epochs and values


def _curve(rows: Sequence[EpochRow], field: str, scale: float) -> Curve:
    values = (getattr(row, field) for row in rows)
    found = [float("nan") if value is None else scale * value for value in values]
    return [row.epoch for row in rows], found


def _lines(curves: Mapping[str, Curve]) -> Figure:
    """Draw one or two curves over the epochs by their label, with a legend where there are two."""
    styles = ((BLUE, "-", "o"), (ORANGE, "--", "s"))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.0, 2.9), layout="constrained")
        axes = figure.subplots()
        for (label, curve), (colour, dashes, marker) in zip(curves.items(), styles, strict=False):
            axes.plot(
                *curve,
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=3 if len(curve[0]) <= 60 else 0,
                linewidth=1.3,
                label=label,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch of the repair")
        if len(curves) > 1:
            axes.legend(frameon=False)
    return figure


def epoch_figures(rows: Sequence[EpochRow]) -> dict[str, Figure]:
    """Draw accuracy, loss, distance and lambda over the epochs.

    Args:
        rows: a field that no row has is not drawn.

    Returns:
        The figures by their titles.

    Example:
        >>> row = EpochRow(epoch=1, loss=0.5, accuracy=0.9, distance=0.1)
        >>> list(epoch_figures([row]))
        ['Accuracy, %', 'Loss, nats', 'Distance of the tracked weights']
    """
    rows = _ordered(rows)
    accuracies = {"samples of the repair": _curve(rows, "accuracy", 100)}
    if _has(rows, "val_accuracy"):
        accuracies["held-out samples"] = _curve(rows, "val_accuracy", 100)
    figures = {"Accuracy, %": _lines(accuracies)}
    for field, title in _TITLES.items():
        if _has(rows, field):
            figures[title] = _lines({field: _curve(rows, field, 1)})
    return figures


def _ordered(rows: Sequence[EpochRow]) -> list[EpochRow]:
    rows = sorted(rows, key=lambda row: row.epoch)
    return rows[:: 1 + len(rows) // _MAX_POINTS]


def _has(rows: Sequence[EpochRow], field: str) -> bool:
    return any(getattr(row, field) is not None for row in rows)


def compared_figures(repairs: Mapping[str, Sequence[EpochRow]]) -> dict[str, Figure]:
    """Draw each quantity of two repairs over their epochs in one figure.

    Args:
        repairs: the rows of each by its label in the legend. A field that not both have is not
            drawn.

    Returns:
        The figures by their titles.

    Example:
        >>> row = EpochRow(epoch=1, loss=0.5, accuracy=0.9)
        >>> list(compared_figures({"A": [row], "B": [row]}))
        ['Accuracy on the samples of the repair, %', 'Loss, nats']
    """
    ordered = {label: _ordered(rows) for label, rows in repairs.items()}
    titles = {
        "val_accuracy": "Accuracy on held-out samples, %",
        "accuracy": "Accuracy on the samples of the repair, %",
        **_TITLES,
    }
    return {
        title: _lines(
            {label: _curve(rows, f, 100 if "acc" in f else 1) for label, rows in ordered.items()}
        )
        for f, title in titles.items()
        if all(_has(rows, f) for rows in ordered.values())
    }


def layer_figure(layers: Sequence[LayerDistance]) -> Figure:
    """Draw the relative displacement of each layer, one bar per layer from top to bottom.

    Args:
        layers: in the model's order; of more than 40 those with the largest displacement. Layers
            whose norm was 0 have no relative displacement and are left out.

    Example:
        >>> layers = [LayerDistance(name="stem.weight", relative=0.1), LayerDistance(name="bias")]
        >>> figure = layer_figure(layers)
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['stem.weight']
    """
    known = [
        (i, row.name, row.relative) for i, row in enumerate(layers) if row.relative is not None
    ]
    shown = sorted(sorted(known, key=lambda layer: -layer[2])[:MAX_LAYERS])
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(7.6, 0.6 + 0.19 * len(shown)), layout="constrained")
        axes = figure.subplots()
        rows = range(len(shown))
        bars = axes.barh(rows, [100 * value for _, _, value in shown], height=0.62, color=BLUE)
        text = partial(shortest, digits=3)
        axes.bar_label(bars, fmt=text, padding=3, fontsize=7.5, color=GREY)
        names = [figure_label(printable(name, 50)) for _, name, _ in shown]
        axes.set_yticks(rows, names, fontsize=7.5)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.grid(axis="x", color=GREY, alpha=0.2, linewidth=0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel("% of the layer’s norm")
    return figure
