# SPDX-License-Identifier: Apache-2.0
"""Rows of a results file, read field by field: the file may be a stranger's.

Every reader takes a row and the name of a field, and gives what is there or raises one line that
says which field of which row it is, what it must be and what it is. Texts come back in one line of
bounded length without control characters.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from d3fast.io.untrusted import printable

Row = Mapping[str, Any]
Read = TypeVar("Read")

_TEXT = 500


def _wrong(row: Row, key: str, wanted: str) -> ValueError:
    where = f"{printable(row.get('kind', 'a'), 40)} row: {key}"
    if key not in row:
        return ValueError(f"{where} is missing")
    return ValueError(f"{where} must be {wanted}, got {printable(repr(row[key]), 60)}")


def number(row: Row, key: str, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number from ``low`` to ``high``.

    Raises:
        ValueError: anything else.

    Example:
        >>> number({"norm": 3}, "norm", low=0)
        3.0
        >>> number({"kind": "inversion", "norm": "3"}, "norm", low=0)
        Traceback (most recent call last):
        ValueError: inversion row: norm must be a finite number >= 0, got '3'
    """
    value: Any = row.get(key)
    # Compared before it is converted: an int may be too large for a float.
    if type(value) in (int, float) and max(low, -1e300) <= value <= min(high, 1e300):
        return float(value)
    bounds = [f">= {low:g}"] * (low > -math.inf) + [f"<= {high:g}"] * (high < math.inf)
    raise _wrong(row, key, " ".join(["a finite number", " and ".join(bounds)]).rstrip())


def integer(row: Row, key: str, low: int = 0, high: int = 2**53) -> int:
    """A whole number from ``low`` to ``high``.

    Raises:
        ValueError: anything else.
    """
    value = row.get(key)
    if type(value) is int and low <= value <= high:
        return value
    raise _wrong(row, key, f"a whole number from {low} to {high}")


def flag(row: Row, key: str) -> bool:
    """True or false.

    Raises:
        ValueError: anything else.
    """
    value = row.get(key)
    if isinstance(value, bool):
        return value
    raise _wrong(row, key, "true or false")


def text(row: Row, key: str, most: int = _TEXT) -> str:
    r"""A text, made printable; the middle of one above ``most`` characters is left out.

    Raises:
        ValueError: no text.

    Example:
        >>> text({"class": "a\nb"}, "class")
        'a\\nb'
    """
    value = row.get(key)
    if isinstance(value, str):
        return printable(value, most)
    raise _wrong(row, key, "a text")


def digest(row: Row, key: str) -> str:
    """A SHA-256 in hex.

    Raises:
        ValueError: anything else.
    """
    value = row.get(key)
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value
    raise _wrong(row, key, "64 hexadecimal digits")


def listed(row: Row, key: str, most: int = 100_000) -> Sequence[Any]:
    """A list of at most ``most`` things of any kind.

    Raises:
        ValueError: no list, or a longer one.
    """
    value = row.get(key)
    if isinstance(value, (list, tuple)) and len(value) <= most:
        return value
    raise _wrong(row, key, f"a list of at most {most}")


def numbers(
    row: Row, key: str, low: float = -math.inf, high: float = math.inf
) -> tuple[float, ...]:
    """A list of finite numbers from ``low`` to ``high``.

    Raises:
        ValueError: anything else.
    """
    kind = row.get("kind", "a")
    return tuple(number({"kind": kind, key: value}, key, low, high) for value in listed(row, key))


def maybe(read: Callable[..., Read], row: Row, key: str, **limits: Any) -> Read | None:
    """What a reader gives, or ``None`` where the field is null or not there.

    Args:
        read: one of the readers above.
        row: the row.
        key: name of the field.
        limits: the reader's own.

    Example:
        >>> maybe(number, {"asr": None}, "asr", low=0, high=1) is None
        True
    """
    return None if row.get(key) is None else read(row, key, **limits)


def of_kind(rows: Sequence[Row], kind: str, most: int = 100_000, **wanted: Any) -> list[Row]:
    """The rows of one kind whose other fields are as wanted.

    Raises:
        ValueError: more than ``most``.
    """
    wanted["kind"] = kind
    found = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    if len(found) > most:
        raise ValueError(f"{len(found)} rows of kind {kind}, at most {most} are read")
    return found


def only(rows: Sequence[Row], kind: str, **wanted: Any) -> Row | None:
    """The one row of a kind, or ``None`` if there is none.

    Raises:
        ValueError: more than one.
    """
    found = of_kind(rows, kind, most=1, **wanted)
    return found[0] if found else None
