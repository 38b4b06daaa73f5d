# SPDX-License-Identifier: Apache-2.0
"""Text of the measures that only an audit has: trigger size and anomaly index."""

import math

from d3fast.results.format import MISSING, fixed, significant


def size(pixels: float) -> str:
    r"""Return the size of a trigger.

    Example:
        >>> size(4.25), size(123.4)
        ('4.2\xa0px', '123\xa0px')
    """
    return fixed(pixels, 1 if pixels < 100 else 0, "px")


def index(value: float | None) -> str:
    """Return an anomaly index, or the value of a sign.

    Example:
        >>> index(4.41), index(math.inf), index(None)
        ('4.4', '∞', '–')
    """
    if value is None:
        return MISSING
    large = 1e5 <= abs(value) < math.inf
    return significant(value, 2) if large else fixed(value)
