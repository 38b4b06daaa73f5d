# SPDX-License-Identifier: Apache-2.0
"""Numbers of a case as a reader wants them: rounded, with unit, with a true minus sign."""

import math
from collections.abc import Sequence

_NB = "\N{NO-BREAK SPACE}"  # a number and its unit stay in one line


def _fixed(value: float, digits: int = 1) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus zero


def percent(share: float) -> str:
    r"""A share in percent.

    Example:
        >>> percent(0.97555), percent(1.0)
        ('97.6\xa0%', '100.0\xa0%')
    """
    return f"{_fixed(100 * share)}{_NB}%"


def points(value: float, unit: str = f"{_NB}points") -> str:
    r"""Percentage points.

    Example:
        >>> points(-0.94), points(0.5, ""), points(-0.01)
        ('−0.9\xa0points', '0.5', '0.0\xa0points')
    """
    return f"{_fixed(value)}{unit}"


def interval(low: float, high: float) -> str:
    r"""An interval of shares, in percent.

    Example:
        >>> interval(0.9529, 0.9871)
        '95.3 to 98.7\xa0%'
    """
    return f"{_fixed(100 * low)} to {_fixed(100 * high)}{_NB}%"


def size(pixels: float) -> str:
    r"""The size of a trigger.

    Example:
        >>> size(4.25), size(123.4)
        ('4.2\xa0px', '123\xa0px')
    """
    return f"{_fixed(pixels, 1 if pixels < 100 else 0)}{_NB}px"


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
