# SPDX-License-Identifier: Apache-2.0
"""The style of every figure: palette, defaults, PNG and inline SVG, drawn without a display.

Colours are those of Okabe and Ito, which readers with a colour vision deficiency can tell apart;
every line also has a style of its own. ``@matplotlib.rc_context(STYLE)`` above a function draws its
figure in this style.
"""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from d3fast.io.files import atomic_write

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PINK, AMBER, SKY = "#CC79A7", "#E69F00", "#56B4E9"
INK, GREY, PAPER = "#000000", "#666666", "#FFFFFF"
# Names of the same colours in page.css, which has others for dark mode.
_CSS_COLOURS = {
    INK: "ink",
    GREY: "muted",
    PAPER: "paper",
    BLUE: "blue",
    ORANGE: "orange",
    GREEN: "green",
    PINK: "pink",
    AMBER: "amber",
    SKY: "sky",
}
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
    """Draw an image (C, H, W), values 0 to 1, without ticks, in a grey frame."""
    shown = pixels.permute(1, 2, 0).cpu().numpy()
    axes.imshow(shown, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=GREY)


def save_png(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG, atomically.

    Raises:
        ValueError: the folder does not exist.
    """
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def inline_svg(figure: Figure, alt: str) -> Markup:
    """Return a figure as an SVG element in the colours and the font of the page around it.

    Args:
        figure: drawn in the colours of this module.
        alt: text that describes the figure to screen readers.

    Example:
        >>> svg = inline_svg(Figure(), 'ASR & "ACC"')
        >>> svg.startswith('<svg role="img" aria-label="ASR &amp; &#34;ACC&#34;"')
        True
    """
    buffer = io.StringIO()
    # The salt makes ids reproducible, and different in two figures on one page.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    # Releases of matplotlib write a font in one property or in two.
    svg = re.sub(r"(font-family: |font: [^';\"]*?)'[^;\"]*", r"\1var(--sans)", svg)
    for colour, name in _CSS_COLOURS.items():
        svg = svg.replace(f": {colour.lower()}", f": var(--{name})")
    opening = Markup('<svg role="img" aria-label="{}"').format(alt)
    return opening + Markup(svg.removeprefix("<svg"))
