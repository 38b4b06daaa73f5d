# SPDX-License-Identifier: Apache-2.0
"""Numbers as text, for tables, pages, figures and terminal lines.

Every function uses a true minus sign, never shows a negative zero, and gives a dash for ``None``.
A unit follows after a no-break space.
"""

import math
from collections.abc import Iterable, Sequence

MISSING = "–"
_NO_BREAK = "\N{NO-BREAK SPACE}"


def _with_unit(text: str, unit: str) -> str:
    return text.replace("-", "−") + (_NO_BREAK + unit if unit else "")


def fixed(value: float | None, digits: int = 1, unit: str = "") -> str:
    r"""Return a number with a fixed number of decimals.

    Example:
        >>> fixed(0.25, 2), fixed(-0.04), fixed(-1.5, unit="px"), fixed(None), fixed(math.inf)
        ('0.25', '0.0', '−1.5\xa0px', '–', '∞')
    """
    if value is None:
        return MISSING
    if math.isinf(value):
        return _with_unit("-∞" if value < 0 else "∞", unit)
    return _with_unit(f"{round(value, digits) + 0.0:.{digits}f}", unit)


def percent(share: float | None, digits: int = 1, unit: str = "") -> str:
    r"""Return a share as a percentage, or a difference of shares as percentage points.

    Example:
        >>> percent(0.1234), percent(-0.002), percent(0.97555, unit="%"), percent(None)
        ('12.3', '−0.2', '97.6\xa0%', '–')
    """
    return fixed(None if share is None else 100 * share, digits, unit)


def points(value: float, digits: int = 1) -> str:
    r"""Return percentage points, given in points.

    Example:
        >>> points(-0.94), points(-0.01)
        ('−0.9\xa0points', '0.0\xa0points')
    """
    return fixed(value, digits, "points")


def seconds(value: float | None) -> str:
    r"""Return a duration in seconds, with one decimal below ten seconds.

    Example:
        >>> seconds(1.234), seconds(81.6), seconds(None)
        ('1.2\xa0s', '82\xa0s', '–')
    """
    return MISSING if value is None else fixed(value, 0 if value >= 9.95 else 1, "s")


def signed(value: float, digits: int = 1) -> str:
    """Return a change with its sign; no change has none.

    Example:
        >>> signed(0.04), signed(1.25, 2), signed(-1.25, 2)
        ('0.0', '+1.25', '−1.25')
    """
    text = fixed(value, digits)
    return f"+{text}" if value > 0 and text != fixed(0, digits) else text


def significant(value: float | None, digits: int = 3, unit: str = "") -> str:
    """Return a number of any magnitude with a number of significant digits.

    Integer parts are never rounded below a million; trailing zeros of numbers below 1 are dropped.

    Example:
        >>> significant(0.01234), significant(1234.5), significant(2.0), significant(-2e-7)
        ('0.0123', '1234', '2.00', '−2e−07')
    """
    if value is None:
        return MISSING
    if not 1 <= abs(value) < 1e6:
        return _with_unit(f"{value:.{digits}g}", unit)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return _with_unit(f"{value:.{decimals}f}", unit)


def shortest(value: float, digits: int = 6, unit: str = "") -> str:
    r"""Return a setting or a limit without trailing zeros, at most so many significant digits.

    Example:
        >>> shortest(0.05), shortest(20.0), shortest(1e-4), shortest(10, unit="%")
        ('0.05', '20', '0.0001', '10\xa0%')
    """
    return _with_unit(f"{value:.{digits}g}", unit)


def value_range(low: float, high: float, digits: int = 1, unit: str = "") -> str:
    r"""Return the ends of a range; "to" separates them where one is negative.

    Example:
        >>> value_range(97, 99.04), value_range(-1.5, 0.5), value_range(95.2, 98.7, unit="%")
        ('97.0–99.0', '−1.5 to 0.5', '95.2–98.7\xa0%')
    """
    between = " to " if low < 0 else "–"
    return fixed(low, digits) + between + fixed(high, digits, unit)


def interval(low: float, high: float) -> str:
    r"""Return an interval of shares in percent, for a sentence.

    Example:
        >>> interval(0.9529, 0.9871)
        '95.3 to 98.7\xa0%'
    """
    return f"{percent(low)} to {percent(high, unit='%')}"


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the numbers that are not ``None``, or ``None`` if there are none.

    Example:
        >>> mean([1.0, None, 2.0]), mean([None])
        (1.5, None)
    """
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def mean_and_range(
    values: Sequence[float | None], digits: int = 1, scale: float = 1.0
) -> tuple[str, str]:
    """Return the mean, and the range of the values or ``""`` if its ends look the same.

    Args:
        values: one per seed; ``None`` where a seed has no number.
        digits: decimals shown.
        scale: factor of all values, 100 for percent.

    Example:
        >>> mean_and_range([0.97, 0.98, None, 0.99], scale=100), mean_and_range([1.0, 1.0])
        (('98.0', '97.0–99.0'), ('1.0', ''))
    """
    present = [value * scale for value in values if value is not None]
    if not present:
        return MISSING, ""
    low, high = min(present), max(present)
    same = fixed(low, digits) == fixed(high, digits)
    return fixed(mean(present), digits), "" if same else value_range(low, high, digits)


def count(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural unless the number is one.

    Example:
        >>> count(1, "seed"), count(0, "attack")
        ('1 seed', '0 attacks')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def joined(parts: Sequence[str]) -> str:
    """Return a list in words.

    Example:
        >>> joined(["a", "b", "c"]), joined(["a"])
        ('a, b and c', 'a')
    """
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
