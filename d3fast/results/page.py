# SPDX-License-Identifier: Apache-2.0
"""A report as one HTML file: styles and figures inside, nothing loaded from anywhere.

Templates lie in ``templates/``: ``page.html`` is the frame that every report extends, ``page.css``
its looks, light or dark as the reader's system is, and plain on paper. Text is escaped by Jinja2.
"""

import io
import re
from pathlib import Path
from typing import Any

import matplotlib
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from d3fast.io.files import atomic_write
from d3fast.results.plot import AMBER, BLUE, GREEN, GREY, INK, ORANGE, PAPER, PINK, SKY

# The page has colours of its own under these names, other ones in the dark.
_INKS = {
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
_TEMPLATES = Environment(
    loader=ChoiceLoader(
        [
            PackageLoader(p)
            for p in ("d3fast.results", "d3fast.audit.report", "d3fast.benchmark.report")
        ]
    ),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def inline_svg(figure: Figure, alt: str) -> Markup:
    """A figure as an SVG element in the page's own colours and font.

    Args:
        figure: drawn in the colours of ``report.plot``.
        alt: what it shows, for who cannot see it.

    Example:
        >>> svg = inline_svg(Figure(), 'ASR & "ACC"')
        >>> svg.startswith('<svg role="img" aria-label="ASR &amp; &#34;ACC&#34;"')
        True
    """
    buffer = io.StringIO()
    # A salt of its own: ids of two figures on one page must not meet, and must not be random.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)
    # Releases of matplotlib write a font in one property or in two.
    svg = re.sub(r"(font-family: |font: [^';\"]*?)'[^;\"]*", r"\1var(--sans)", svg)
    for colour, name in _INKS.items():
        svg = svg.replace(f": {colour.lower()}", f": var(--{name})")
    opening = Markup('<svg role="img" aria-label="{}"').format(alt)
    return opening + Markup(svg.removeprefix("<svg"))


def render(template: str, **content: Any) -> str:
    """Fill a template.

    Args:
        template: its name in ``templates/``.
        content: what it asks for; a name that is missing raises.
    """
    return _TEMPLATES.get_template(template).render(**content)


def write_page(path: str | Path, template: str, **content: Any) -> None:
    """Fill a template and write the page, whole or not at all.

    Raises:
        ValueError: the folder does not exist.
    """
    text = render(template, **content)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
