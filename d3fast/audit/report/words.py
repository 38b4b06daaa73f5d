# SPDX-License-Identifier: Apache-2.0
"""Numbers and names on the page of an audit."""

import math

from d3fast.results.format import MISSING, fixed, significant
from d3fast.results.schema.audit import InversionRow


def size(pixels: float) -> str:
    r"""Return the size of a trigger.

    Example:
        >>> size(4.25), size(123.4)
        ('4.2\xa0px', '123\xa0px')
    """
    return fixed(pixels, 1 if pixels < 100 else 0, "px")


def trigger_words(row: InversionRow) -> str:
    """Return a trigger of tokens in quotes, or the size of a patch."""
    return size(row.norm) if row.tokens is None else f"“{row.tokens}”"


def index(value: float | None) -> str:
    """Return an anomaly index or the score of a detector.

    Example:
        >>> index(4.41), index(math.inf), index(None)
        ('4.4', '∞', '–')
    """
    if value is None:
        return MISSING
    large = 1e5 <= abs(value) < math.inf
    return significant(value, 2) if large else fixed(value)


def figure_label(name: str) -> str:
    """Return a name that matplotlib neither reads as mathematics nor hides.

    Example:
        >>> figure_label("_$x$")
        '＄x＄'
    """
    return name.replace("$", "＄").lstrip("_") or "?"
