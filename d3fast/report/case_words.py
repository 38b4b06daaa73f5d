# SPDX-License-Identifier: Apache-2.0
"""Numbers of a case as a reader wants them: rounded, with unit, with a true minus sign."""

import math
from collections.abc import Sequence


def _fixed(value: float, digits: int = 1) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus zero


def percent(share: float) -> str:
    """A share in percent.

    Example:
        >>> percent(0.97555), percent(1.0)
        ('97.6 %', '100.0 %')
    """
    return f"{_fixed(100 * share)} %"


def points(value: float, unit: str = " points") -> str:
    """Percentage points.

    Example:
        >>> points(-0.94), points(0.5, ""), points(-0.01)
        ('−0.9 points', '0.5', '0.0 points')
    """
    return f"{_fixed(value)}{unit}"


def interval(low: float, high: float) -> str:
    """An interval of shares, in percent.

    Example:
        >>> interval(0.9529, 0.9871)
        '95.3 to 98.7 %'
    """
    return f"{_fixed(100 * low)} to {_fixed(100 * high)} %"


def size(pixels: float) -> str:
    """The size of a trigger.

    Example:
        >>> size(4.25), size(123.4)
        ('4.2 px', '123 px')
    """
    return f"{_fixed(pixels, 1 if pixels < 100 else 0)} px"


def index(value: float | None) -> str:
    """An anomaly index, or the value of a sign.

    Example:
        >>> index(4.41), index(math.inf), index(None)
        ('4.4', '∞', '–')
    """
    if value is None:
        return "–"
    if math.isinf(value):
        return "∞"
    return _fixed(value) if abs(value) < 1e5 else f"{value:.1e}".replace("-", "−")


def joined(parts: Sequence[str]) -> str:
    """A list in words.

    Example:
        >>> joined(["a", "b", "c"]), joined(["a"])
        ('a, b and c', 'a')
    """
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
