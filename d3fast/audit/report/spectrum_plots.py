# SPDX-License-Identifier: Apache-2.0
"""Figures of ``d3fast spectrum``: density, eigenvalues, the way through a repair, layers.

The suspect is grey; its repairs are told apart by colour, dashes and marker together.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3fast.results.plot import AMBER, BLUE, GREEN, GREY, INK, ORANGE, PINK, STYLE
from d3fast.spectrum import Density

Row = Mapping[str, Any]

_REPAIRS = (
    (BLUE, "-", "o"),
    (ORANGE, "--", "s"),
    (GREEN, "-.", "^"),
    (PINK, ":", "D"),
    (AMBER, (0, (4, 1, 1, 1)), "v"),
)


def looks(models: Sequence[str]) -> dict[str, tuple[str, Any, str]]:
    """Colour, dashes and marker by model; the first is the suspect."""
    repairs = {name: _REPAIRS[i % len(_REPAIRS)] for i, name in enumerate(models[1:])}
    return {models[0]: (GREY, "-", "x"), **repairs}


def density_figure(rows: Sequence[Row], models: Sequence[str], points: int = 801) -> Figure:
    """How the eigenvalues of one loss are spread, a line per model; the axis is symlog.

    Args:
        rows: of kind ``spectrum`` and of one loss.
        models: their order.
        points: where the curve is drawn.
    """
    nodes = torch.tensor([row["nodes"] for row in rows], dtype=torch.float64)
    reach = float(nodes.abs().max()) or 1.0
    width = reach / 60
    low, high = float(nodes.min()) - 4 * width, float(nodes.max()) + 4 * width
    at = torch.linspace(low, high, points, dtype=torch.float64)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        axes, top = figure.subplots(), 1.0
        for row in rows:
            colour, dashes, _ = looks(models)[row["model"]]
            spread = Density(torch.tensor(row["nodes"]), torch.tensor(row["weights"]), row["size"])
            height, error = (part * row["size"] for part in spread.curve(at, width))
            axes.plot(at, height, color=colour, linestyle=dashes, linewidth=1.3, label=row["model"])
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


def eigenvalue_figure(rows: Sequence[Row], models: Sequence[str]) -> Figure:
    """The outermost eigenvalues of one loss, largest magnitude first; residuals as bars.

    Args:
        rows: of kind ``spectrum`` and of one loss.
        models: their order.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        axes = figure.subplots()
        for shift, row in enumerate(rows):
            colour, _, marker = looks(models)[row["model"]]
            places = [
                i + 1 + 0.12 * (shift - (len(rows) - 1) / 2) for i in range(len(row["eigenvalues"]))
            ]
            axes.errorbar(
                places,
                row["eigenvalues"],
                yerr=row["residuals"],
                color=colour,
                marker=marker,
                markersize=5,
                linestyle="none",
                capsize=2,
                linewidth=1,
                label=row["model"],
            )
        sizes = [abs(value) for row in rows for value in row["eigenvalues"]]
        axes.set_yscale("symlog", linthresh=max(min(sizes) / 2, max(sizes) / 1000, 1e-12))
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_xticks(range(1, 1 + max(len(row["eigenvalues"]) for row in rows)))
        axes.set_xlabel("rank by magnitude")
        axes.set_title("Outermost eigenvalues", loc="left")
        axes.legend(frameon=False)
    return figure


def _draw_losses(axes: Axes, points: Sequence[Row]) -> None:
    ts = [point["at"][0] for point in points]
    for key, colour, dashes in (("clean_loss", BLUE, "-"), ("backdoor_loss", ORANGE, "--")):
        label, values = key.replace("_", " "), [point[key] for point in points]
        if any(value is not None for value in values):
            shown = [float("nan") if value is None else value for value in values]
            axes.plot(ts, shown, color=colour, linestyle=dashes, label=label)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(bottom=0)
    axes.set_title("Mean loss, nats", loc="left")


def _draw_rates(axes: Axes, points: Sequence[Row]) -> None:
    ts = [point["at"][0] for point in points]
    for key, label, colour, dashes in (("acc", "ACC", BLUE, "-"), ("asr", "ASR", ORANGE, "--")):
        if points[0][key] is not None:
            rates = [float("nan") if p[key] is None else 100 * p[key] for p in points]
            axes.plot(ts, rates, color=colour, linestyle=dashes, label=label)
    axes.set_ylim(-3, 115)  # room for the names of the models
    axes.set_yticks(range(0, 101, 20))
    axes.set_title("ACC and ASR, %", loc="left")


def path_figure(row: Row, suspect: str) -> Figure:
    """Losses and rates from the suspect through one repair and beyond, both models marked.

    Args:
        row: of kind ``path``.
        suspect: its name.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3), layout="constrained")
        for axes, draw in zip(figure.subplots(1, 2), (_draw_losses, _draw_rates), strict=True):
            draw(axes, row["points"])
            for t, name in ((0, suspect), (1, row["model"])):
                axes.axvline(t, color=INK, linewidth=0.8, linestyle=":")
                axes.annotate(
                    name,
                    (t, 1),
                    (3, -2),
                    xycoords=("data", "axes fraction"),
                    textcoords="offset points",
                    va="top",
                    fontsize=8,
                )
            axes.set_xlabel("t, from suspect (0) to repair (1) and beyond")
            axes.legend(frameon=False, loc="best", fontsize=8)
    return figure


def distance_figure(rows: Sequence[Row], models: Sequence[str]) -> Figure:
    """Relative distance per parameter, in the model's order, a line per repair.

    Args:
        rows: of kind ``distance``.
        models: their order.
    """
    layers = [layer["name"] for layer in rows[0]["layers"]]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(6.0, 0.2 * len(layers) + 2), 4), layout="constrained")
        axes = figure.subplots()
        for row in rows:
            colour, dashes, marker = looks(models)[row["model"]]
            values = [layer["relative"] for layer in row["layers"]]
            shown = [float("nan") if value is None else value for value in values]
            axes.plot(
                range(len(layers)),
                shown,
                color=colour,
                linestyle=dashes,
                marker=marker,
                markersize=4,
                linewidth=0.9,
                label=row["model"],
            )
        axes.set_yscale("log")
        axes.set_xticks(range(len(layers)), layers, rotation=90, fontsize=7)
        axes.set_title("Distance from the suspect, in units of the layer's norm", loc="left")
        axes.legend(frameon=False)
    return figure
