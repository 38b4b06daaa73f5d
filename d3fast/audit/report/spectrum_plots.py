# SPDX-License-Identifier: Apache-2.0
"""Figures of ``d3fast spectrum``: density, eigenvalues, line through a repair, layers.

The suspect is grey; repaired models differ in colour, dashes and marker.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3fast.audit.report.words import figure_label
from d3fast.results.plot import AMBER, BLUE, GREEN, GREY, INK, ORANGE, PINK, STYLE
from d3fast.results.schema.spectrum import ModelDistances, PathPoint, PathRow, SpectrumRow
from d3fast.spectrum import Density

_REPAIRED = (
    (BLUE, "-", "o"),
    (ORANGE, "--", "s"),
    (GREEN, "-.", "^"),
    (PINK, ":", "D"),
    (AMBER, (0, (4, 1, 1, 1)), "v"),
)


def model_styles(models: Sequence[str]) -> dict[str, tuple[str, Any, str]]:
    """Return colour, dashes and marker by model; the first is the suspect."""
    repaired = {name: _REPAIRED[i % len(_REPAIRED)] for i, name in enumerate(models[1:])}
    return {models[0]: (GREY, "-", "x"), **repaired}


def _values(values: Sequence[float | None], scale: float = 1.0) -> list[float]:
    return [float("nan") if value is None else scale * value for value in values]


def density_figure(rows: Sequence[SpectrumRow], models: Sequence[str], points: int = 801) -> Figure:
    """Draw the spectral density of one loss, a line per model, on a logarithmic axis.

    Args:
        rows: of one loss, one per model.
        models: their order.
        points: of each curve.
    """
    nodes = torch.tensor([row.nodes for row in rows], dtype=torch.float64)
    reach = float(nodes.abs().max()) or 1.0
    width = reach / 60
    low, high = float(nodes.min()) - 4 * width, float(nodes.max()) + 4 * width
    at = torch.linspace(low, high, points, dtype=torch.float64)
    styles = model_styles(models)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        axes, top = figure.subplots(), 1.0
        for row in rows:
            colour, dashes, _ = styles[row.model]
            density = Density(torch.tensor(row.nodes), torch.tensor(row.weights), row.size)
            height, error = (part * row.size for part in density.curve(at, width))
            label = figure_label(row.model)
            axes.plot(at, height, color=colour, linestyle=dashes, linewidth=1.3, label=label)
            axes.fill_between(
                at,
                (height - error).clamp_min(1e-9),
                height + error,
                color=colour,
                alpha=0.15,
                linewidth=0,
            )
            top = max(top, float(height.max()))
        axes.set_yscale("log")
        # A single eigenvalue is a bump of height 0.4 / width.
        axes.set_ylim(0.04 / width, 3 * top)
        axes.set_xlabel("eigenvalue")
        axes.set_title("Eigenvalues per unit", loc="left")
        axes.legend(frameon=False)
    return figure


def eigenvalue_figure(rows: Sequence[SpectrumRow], models: Sequence[str]) -> Figure:
    """Draw the largest eigenvalues of one loss by magnitude; error bars are the residuals.

    Args:
        rows: of one loss, one per model.
        models: their order.
    """
    styles = model_styles(models)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for model, row in enumerate(rows):
            colour, _, marker = styles[row.model]
            shift = 0.12 * (model - (len(rows) - 1) / 2)
            axes.errorbar(
                [rank + 1 + shift for rank in range(len(row.eigenvalues))],
                row.eigenvalues,
                yerr=row.residuals,
                color=colour,
                marker=marker,
                markersize=5,
                linestyle="none",
                capsize=2,
                linewidth=1,
                label=figure_label(row.model),
            )
        sizes = [abs(value) for row in rows for value in row.eigenvalues]
        axes.set_yscale("symlog", linthresh=max(min(sizes) / 2, max(sizes) / 1000, 1e-12))
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xticks(range(1, 1 + max(len(row.eigenvalues) for row in rows)))
        axes.set_xlabel("rank by magnitude")
        axes.set_title("Largest eigenvalues", loc="left")
        axes.legend(frameon=False)
    return figure


def _draw_losses(axes: Axes, points: Sequence[PathPoint]) -> None:
    ts = [point.at[0] for point in points]
    for field, colour, dashes in (("clean_loss", BLUE, "-"), ("backdoor_loss", ORANGE, "--")):
        values = [getattr(point, field) for point in points]
        if any(value is not None for value in values):
            label = field.replace("_", " ")
            axes.plot(ts, _values(values), color=colour, linestyle=dashes, label=label)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(bottom=0)
    axes.set_title("Mean loss, nats", loc="left")


def _draw_rates(axes: Axes, points: Sequence[PathPoint]) -> None:
    ts = [point.at[0] for point in points]
    for field, colour, dashes in (("acc", BLUE, "-"), ("asr", ORANGE, "--")):
        values = [getattr(point, field) for point in points]
        if values[0] is not None:
            rates = _values(values, 100)
            axes.plot(ts, rates, color=colour, linestyle=dashes, label=field.upper())
    axes.set_ylim(-3, 115)  # room for the names of the models
    axes.set_yticks(range(0, 101, 20))
    axes.set_title("ACC and ASR, %", loc="left")


def path_figure(row: PathRow, suspect: str) -> Figure:
    """Draw losses and rates on the line from the suspect through one repaired model.

    Args:
        row: the line.
        suspect: name of the suspect.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3), layout="constrained")
        for axes, draw in zip(figure.subplots(1, 2), (_draw_losses, _draw_rates), strict=True):
            draw(axes, row.points)
            for t, name in ((0, suspect), (1, row.model)):
                axes.axvline(t, color=INK, linewidth=0.8, linestyle=":")
                axes.annotate(
                    figure_label(name),
                    (t, 1),
                    (3, -2),
                    xycoords=("data", "axes fraction"),
                    textcoords="offset points",
                    va="top",
                    fontsize=8,
                )
            axes.set_xlabel("t, from suspect (0) to repaired model (1) and beyond")
            axes.legend(frameon=False, loc="best", fontsize=8)
    return figure


def distance_figure(rows: Sequence[ModelDistances], models: Sequence[str]) -> Figure:
    """Draw the relative displacement per layer, in the model's order, a line per repaired model.

    Args:
        rows: one per repaired model.
        models: their order.
    """
    layers = [figure_label(layer.name) for layer in rows[0].layers]
    styles = model_styles(models)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(6.0, 0.2 * len(layers) + 2), 4), layout="constrained")
        axes = figure.subplots()
        for row in rows:
            colour, dashes, marker = styles[row.model]
            axes.plot(
                range(len(row.layers)),
                _values([layer.relative for layer in row.layers]),
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=4,
                linewidth=0.9,
                label=figure_label(row.model),
            )
        axes.set_yscale("log")
        axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
        axes.set_title("Distance from the suspect, in units of the layer's norm", loc="left")
        axes.legend(frameon=False)
    return figure
