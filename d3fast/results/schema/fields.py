# SPDX-License-Identifier: Apache-2.0
"""Field types of the rows of a results file, and the reader that checks a row against them.

The file may be hostile. A field type bounds what is read: numbers are finite, lists have a largest
length, texts become printable and are cut to a largest length. The error is one line that names
the row, the field and its value.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import msgspec
from msgspec import Meta

from d3fast.io.untrusted import printable

MAX_ROWS = 25_000  # of one kind: one per class of ImageNet-21k
_FINITE = 1e300  # an int may be too large for a float
_DRAWN = 1e12  # the largest value that a figure can show
_SHA256 = r"^[0-9a-f]{64}\Z"
_FILE_NAME = r"^(?!\.{1,2}\Z)[^/\\\x00-\x1f\x7f]{1,120}\Z"

Number = Annotated[float, Meta(ge=-_FINITE, le=_FINITE)]
NonNegative = Annotated[float, Meta(ge=0, le=_FINITE)]
Drawn = Annotated[float, Meta(ge=-_DRAWN, le=_DRAWN)]  # a number that a figure shows
DrawnNonNegative = Annotated[float, Meta(ge=0, le=_DRAWN)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Change = Annotated[float, Meta(ge=-1, le=1)]  # difference of two fractions
Points = Annotated[float, Meta(ge=-100, le=100)]  # percentage points
Count = Annotated[int, Meta(ge=0, le=2**53)]
Positive = Annotated[int, Meta(ge=1, le=2**53)]
Sha256 = Annotated[str, Meta(pattern=_SHA256)]
FileName = Annotated[str, Meta(pattern=_FILE_NAME)]
Interval = tuple[Number, Number]

# The reader cuts texts to so many characters; see ``Record``.
Label = Annotated[str, Meta(extra={"characters": 60})]
Name = Annotated[str, Meta(extra={"characters": 80})]
Text = Annotated[str, Meta(extra={"characters": 500})]
LongText = Annotated[str, Meta(extra={"characters": 1500})]
Picture = Annotated[str, Meta(max_length=2**20)]  # a data URI, see audit.report.pictures

_PHRASES = {
    "Expected `float`": "a number",
    "Expected `int`": "an integer",
    "Expected `bool`": "true or false",
    "Expected `str`": "a text",
    "Expected `array`": "a list",
    "Expected `object`": "an object",
    "Number out of range": "a finite number",
    f"Expected `str` matching regex {_SHA256!r}": "64 hexadecimal digits",
    f"Expected `str` matching regex {_FILE_NAME!r}": "the name of a file",
}
_BOUND = re.compile(r"^Expected `(?:float|int)` (>=|<=) (\S+)$")
_LENGTH = re.compile(r"^Expected `(?:array|str)` (of length .*)$")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Typed fields of a row, or of an object inside a row.

    ``read_record`` makes every ``Label``, ``Name``, ``Text`` and ``LongText`` one printable line
    of bounded length.
    """

    def to_row(self) -> dict[str, Any]:
        """Return the fields by their JSON names, ``kind`` first; a tuple becomes a list."""
        row: dict[str, Any] = _lists(msgspec.to_builtins(self))
        return row


class Row(Record, frozen=True, kw_only=True, tag_field="kind"):
    """A row with a field ``kind``; each subclass gives its kind as ``tag``."""


Read = TypeVar("Read", bound=msgspec.Struct)


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lists(part) for key, part in value.items()}
    return [_lists(part) for part in value] if isinstance(value, (list, tuple)) else value


@cache
def _text_fields(kind: type[Record]) -> tuple[tuple[str, int], ...]:
    """Name and largest length of each text field."""
    hints = get_type_hints(kind, include_extras=True)
    limits = ((name, _characters(hint)) for name, hint in hints.items())
    return tuple((name, limit) for name, limit in limits if limit is not None)


def _characters(hint: Any) -> int | None:
    for meta in getattr(hint, "__metadata__", ()):
        if meta.extra:
            return int(meta.extra["characters"])
    nested = (_characters(part) for part in get_args(hint))
    return next((limit for limit in nested if limit is not None), None)


def _make_printable(record: Record) -> None:
    for name, characters in _text_fields(type(record)):
        value = getattr(record, name)
        if isinstance(value, str):
            value = printable(value, characters)
        elif value is not None:
            value = tuple(printable(text, characters) for text in value)
        msgspec.structs.force_setattr(record, name, value)
    for name in record.__struct_fields__:
        value = getattr(record, name)
        for nested in value if isinstance(value, tuple) else (value,):
            if isinstance(nested, Record):
                _make_printable(nested)


def read_record(fields: Mapping[str, Any], kind: type[Read], title: str = "") -> Read:
    """Check the fields of one record.

    Args:
        fields: by their JSON names; unknown ones are ignored.
        kind: the record to build.
        title: names the record in the error text.

    Raises:
        ValueError: a field that is missing, of another type or out of its bounds.

    Example:
        >>> class Point(Record, frozen=True, kw_only=True):
        ...     x: NonNegative
        >>> read_record({"x": 3}, Point)
        Point(x=3.0)
        >>> read_record({"x": -3}, Point, "point")
        Traceback (most recent call last):
        ValueError: point: x must be >= 0, got -3
    """
    try:
        record = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        text = _error_text(fields, str(error))
        raise ValueError(f"{title}: {text}" if title else text) from None
    if isinstance(record, Record):
        _make_printable(record)
    return record


def _error_text(fields: Mapping[str, Any], message: str) -> str:
    """Turn an error of msgspec into ``field must be …, got …``."""
    if message.startswith("Object contains unknown field"):
        return f"{printable(message[31:-1], 100)} is unknown"
    problem, _, path = message.rpartition(" - at `$")
    problem, path = (problem, path.rstrip("`")) if problem else (message, "")
    if problem.startswith("Object missing required field"):
        missing = f"{path}.{problem.split('`')[1]}"
        return f"{printable(missing.lstrip('.'), 100)} is missing"
    value, field = _at(fields, path), printable(path.lstrip("."), 100)
    expected, got = _expected(problem), _shown(value)
    if expected is None:  # raised by a record's own check, which names the field and the value
        return printable(problem)
    if _LENGTH.match(problem):
        got = str(len(value))
    return f"{field} must be {expected}, got {got}"


def _expected(problem: str) -> str | None:
    if bound := _BOUND.match(problem):
        return f"{bound[1]} {float(bound[2]):.16g}"
    if length := _LENGTH.match(problem):
        return length[1]
    if problem.startswith("Invalid enum value"):
        return "one of the known values"
    phrase = problem.partition(", got ")[0]
    optional = phrase.endswith(" | null`")
    phrase = _PHRASES.get(phrase.replace(" | null`", "`"), "")
    return phrase + " or null" * optional if phrase else None


def _at(fields: Any, path: str) -> Any:
    """Return the value at a path such as ``.layers[3].relative``."""
    for key, position in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        fields = fields[key] if key else fields[int(position)]
    return fields


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list, tuple)):
        return f"{'an object' if isinstance(value, dict) else 'a list'} of {len(value)}"
    return printable(repr(value), 60)


def tag_of(kind: type[Row]) -> str:
    """Return the value of ``kind`` in the JSON of a row."""
    return str(kind.__struct_config__.tag)


RowType = TypeVar("RowType", bound=Row)


def read_rows(
    rows: Sequence[Mapping[str, Any]], kind: type[RowType], most: int = MAX_ROWS, **fields: Any
) -> tuple[RowType, ...]:
    """Check the rows of one kind.

    Args:
        rows: of a results file, of any kinds.
        kind: the rows to read.
        most: largest number of rows.
        fields: other fields that a row must equal to be read, such as ``role``.

    Raises:
        ValueError: more than ``most`` rows, or a row that cannot be read.
    """
    tag = tag_of(kind)
    fields["kind"] = tag
    found = [row for row in rows if all(row.get(key) == value for key, value in fields.items())]
    if len(found) > most:
        raise ValueError(f"rows of kind {tag} must be at most {most}, got {len(found)}")
    return tuple(read_record(row, kind, f"{tag} row") for row in found)


def read_only_row(
    rows: Sequence[Mapping[str, Any]], kind: type[RowType], **fields: Any
) -> RowType | None:
    """Check the one row of a kind; ``None`` if there is none.

    Raises:
        ValueError: more than one, or a row that cannot be read.
    """
    return next(iter(read_rows(rows, kind, 1, **fields)), None)
