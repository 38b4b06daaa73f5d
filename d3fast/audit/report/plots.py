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


def _values(rows: Sequence[EpochRow], field: str, scale: float) -> list[float]:
    values = (getattr(row, field) for row in rows)
    return [float("nan") if value is None else scale * value for value in values]


def _lines(rows: Sequence[EpochRow], labels: Mapping[str, str], scale: float = 1.0) -> Figure:
    """Draw one or two fields over the epochs, with a legend where there are two."""
    styles = ((BLUE, "-", "o"), (ORANGE, "--", "s"))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.0, 2.9), layout="constrained")
        axes = figure.subplots()
        epochs = [row.epoch for row in rows]
        for (field, label), (colour, dashes, marker) in zip(labels.items(), styles, strict=False):
            axes.plot(
                epochs,
                _values(rows, field, scale),
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=3 if len(rows) <= 60 else 0,
                linewidth=1.3,
                label=label,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch of the repair")
        if len(labels) > 1:
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
    rows = sorted(rows, key=lambda row: row.epoch)
    rows = rows[:: 1 + len(rows) // _MAX_POINTS]

    def has(field: str) -> bool:
        return any(getattr(row, field) is not None for row in rows)

    accuracies = {"accuracy": "samples of the repair"}
    if has("val_accuracy"):
        accuracies["val_accuracy"] = "held-out samples"
    figures = {"Accuracy, %": _lines(rows, accuracies, 100)}
    figures["Loss, nats"] = _lines(rows, {"loss": "loss"})
    if has("distance"):
        figures["Distance of the tracked weights"] = _lines(rows, {"distance": "distance"})
    if has("clean_weight"):
        figures["Weight of the clean loss, λ"] = _lines(rows, {"clean_weight": "λ"})
    return figures


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
