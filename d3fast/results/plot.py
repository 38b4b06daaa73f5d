# SPDX-License-Identifier: Apache-2.0
"""The one plotting module: figures of runs, drawn without a display.

Colours are those of Okabe and Ito, told apart by readers who do not see red and green alike; every
line also has a style of its own.
"""

from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3fast.io.files import atomic_write

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PINK, AMBER, SKY = "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, PAPER = "#000000", "#666666", "#FFFFFF"
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


def show_image(axes: Axes, pixels: torch.Tensor) -> None:
    """Draw an image (H, W, C), values 0 to 1, without ticks, in a grey frame."""
    shown = pixels.permute(1, 2, 0).cpu()
    axes.imshow(shown.squeeze(-1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=GREY)


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        ValueError: the folder does not exist.
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")
