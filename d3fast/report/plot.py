# SPDX-License-Identifier: Apache-2.0
"""The one plotting module: figures of runs, drawn without a display.

Colours are those of Okabe and Ito, told apart by readers who do not see red and green alike; every
line also has a style of its own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

from d3fast.data import ImageData, as_float
from d3fast.demo import BACKDOORED, CLEAN, FINE_TUNED, FINE_TUNED_HOT, REPAIRED, Curve, SeedRun
from d3fast.files import whole_file

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PINK, AMBER, SKY = "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, PAPER = "#000000", "#666666", "#FFFFFF"
_LINES = {FINE_TUNED: (ORANGE, "--"), FINE_TUNED_HOT: (GREEN, "-."), REPAIRED: (BLUE, "-")}
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GREY,
    "grid.alpha": 0.2,
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.dpi": 150,
}


def _draw_rates(axes: Axes, curves: Mapping[str, Curve], key: str, level: float) -> None:
    for name, curve in curves.items():
        colour, style = _LINES[name]
        rates = [100 * value for value in getattr(curve, key)]
        axes.plot(curve.epochs, rates, style, color=colour, label=name)
    axes.axhline(100 * level, color=GREY, linewidth=1, linestyle=":", label=CLEAN)
    axes.set_ylim(-3, 103)
    axes.set_xlabel("epoch of the repair")


def _draw_distance(axes: Axes, curves: Mapping[str, Curve]) -> None:
    for name, curve in curves.items():
        colour, style = _LINES[name]
        axes.plot(curve.epochs, curve.distance, style, color=colour, label=name)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("epoch of the repair")
    axes.set_title("Distance of the tracked weights\n(1: their norm at the start)", loc="left")


@torch.no_grad()
def _answers(model: nn.Module, images: torch.Tensor, classes: tuple[str, ...]) -> str:
    return classes[int(model(as_float(images)).argmax())]


def _draw_example(clean: Axes, triggered: Axes, run: SeedRun) -> None:
    others = (run.test.labels != run.attack.target).nonzero().flatten()
    image = run.test.images[others[:1]]
    stamped = run.attack.trigger(image)
    suspect, repaired = run.models[BACKDOORED], run.models[REPAIRED]
    for axes, shown, title in ((clean, image, "clean image"), (triggered, stamped, "with trigger")):
        _show_image(axes, as_float(shown[0]))
        said = (
            f"backdoored: {_answers(suspect, shown, run.test.classes)}\n"
            f"after D3: {_answers(repaired, shown, run.test.classes)}"
        )
        axes.set_title(f"{title}\n{said}", fontsize=9)


def demo_figure(run: SeedRun, title: str) -> Figure:
    """One seed of the demonstration: an example, ASR, ACC and distance over the epochs.

    Args:
        run: the seed's models and curves.
        title: above the figure.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13, 3.6), layout="constrained")
        layout = "abcde"
        axes = figure.subplot_mosaic([list(layout)], width_ratios=[0.8, 0.8, 1.5, 1.5, 1.5])
        _draw_example(axes["a"], axes["b"], run)
        twin = next(row for row in run.rows if row["model"] == CLEAN)
        _draw_rates(axes["c"], run.curves, "asr", twin["asr"])
        axes["c"].set_title("Attack success rate, %", loc="left")
        _draw_rates(axes["d"], run.curves, "acc", twin["acc"])
        axes["d"].set_title("Accuracy on clean images, %", loc="left")
        _draw_distance(axes["e"], run.curves)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        handles, labels = axes["c"].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=len(labels), frameon=False)
    return figure


def _show_image(axes: Axes, pixels: torch.Tensor) -> None:
    shown = pixels.permute(1, 2, 0).cpu()
    axes.imshow(shown.squeeze(-1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=GREY)


def trigger_figure(triggers: Mapping[str, Any], data: ImageData, images: int = 3) -> Figure:
    """One strip per attack: clean, triggered and their difference, times five, around grey.

    Args:
        triggers: attacks by name.
        data: where the images come from: the first of different classes that an attack may want
            to change.
        images: how many of them stand in each strip.
    """
    targets = {attack.target for attack in triggers.values()}
    free = [
        c for c in range(len(data.classes)) if c not in targets and bool((data.labels == c).any())
    ]
    chosen = [int((data.labels == label).nonzero()[0]) for label in free[:images]]
    clean = as_float(data.images[chosen])
    columns = 3 * len(chosen)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(columns * 1.05 + 1, 1.12 * len(triggers) + 0.4),
                        layout="constrained")  # fmt: skip
        grid = figure.subplots(len(triggers), columns, squeeze=False)
        for row, (name, attack) in enumerate(triggers.items()):
            stamped = as_float(attack.trigger(data.images[chosen]))
            difference = (0.5 + 5 * (stamped - clean)).clamp(0, 1)
            for place in range(len(chosen)):
                for offset, kind in enumerate((clean, stamped, difference)):
                    axes = grid[row, 3 * place + offset]
                    _show_image(axes, kind[place])
                    if row == 0:
                        axes.set_title(("clean", "triggered", "diff. × 5")[offset], fontsize=9)
            grid[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    return figure


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        ValueError: the folder does not exist.
    """
    with whole_file(path) as temporary:
        figure.savefig(temporary, format="png")
