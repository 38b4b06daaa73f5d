# SPDX-License-Identifier: Apache-2.0
"""Columns of a CSV, TSV, JSON or JSON-lines file from a stranger.

A file is read as a stream, and only the columns that the caller chooses are kept. Limits: 256 MiB,
2^20 rows, 2^22 lines, 1,000 columns,
2^24 fields; a line of CSV or an object of JSON has at most 1 MiB, a field of CSV at
most 128 KiB. Every error is one line that names the file.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from d3fast.io.untrusted import error_text, open_regular, printable

MAX_TABLE = 2**28  # bytes of a file
MAX_ROWS = 2**20
MAX_COLUMNS = 1000
MAX_FIELDS = 2**24
MAX_RECORD = 2**20  # characters of a line or an object
_MAX_LINES = 2**22  # a field may have several
_CHUNK = 2**16
_DELIMITERS = ",;\t|"

# From the columns that a file has to those to keep.
Choose = Callable[[Sequence[str]], Sequence[str]]


@dataclass(frozen=True)
class Table:
    """Chosen columns of a file.

    Attributes:
        columns: values of every row by column; texts of a CSV file, JSON values, bytes.
        names: class names by column of integer labels, where the file declares them.
    """

    columns: Mapping[str, list[Any]]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_csv(path: Path, choose: Choose) -> Table:
    """Read columns of a CSV or TSV file with a header line, in UTF-8.

    Args:
        path: the file. The delimiter is a tab in a ``.tsv`` file. Elsewhere it is the one of
            comma, semicolon, tab and bar that the header has most of.
        choose: gets the names of the columns.

    Raises:
        ValueError: a file beyond the limits, one that is no UTF-8, or has rows of another length
            than the header; what ``choose`` raises.
        OSError: a file that cannot be opened.
    """
    with _text(path) as file:
        lines = _lines(file)
        header = next(lines, "")
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=header.count)
        rows = csv.reader(chain([header], lines), delimiter=delimiter, strict=True)
        names = [name.strip() for name in next(rows, [])]
        chosen = _chosen(names, choose)
        columns: dict[str, list[Any]] = {name: [] for name in chosen}
        places = [(columns[name], names.index(name)) for name in chosen]
        for count, row in enumerate(rows):
            if not row:  # a blank line
                continue
            if len(row) != len(names):
                raise ValueError(
                    f"line {rows.line_num} has {len(row)} fields, its header has {len(names)}"
                )
            _check_count(count, len(row))
            for values, place in places:
                values.append(row[place])
    return Table(columns)


def read_json(path: Path, choose: Choose) -> Table:
    """Read fields of the objects in a JSON-lines file, or in a JSON file with one list of objects.

    Args:
        path: the file.
        choose: gets the names of the first object's fields; every object must have the chosen ones.

    Raises:
        ValueError: a file beyond the limits, one that is no JSON of this form; an object without a
            chosen field; what ``choose`` raises.
        OSError: a file that cannot be opened.
    """
    columns: dict[str, list[Any]] = {}
    with _text(path) as file:
        for count, row in enumerate(_objects(file)):
            if not columns:
                columns = {name: [] for name in _chosen(list(row), choose)}
            _check_count(count, len(row))
            for name, values in columns.items():
                if name not in row:
                    raise ValueError(f"object {count + 1} has no '{printable(name, 80)}'")
                values.append(row[name])
    return Table(columns)


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """Open a text file of limited length as a stream; errors of the block name the file."""
    with open_regular(path) as raw:
        if raw.seek(0, io.SEEK_END) > MAX_TABLE:
            raise ValueError(f"{printable(path)} is longer than {MAX_TABLE} bytes")
        raw.seek(0)
        try:
            yield io.TextIOWrapper(raw, encoding="utf-8-sig", newline="")
        except UnicodeDecodeError as error:
            raise ValueError(f"{printable(path)} is not UTF-8 text: {error.reason}") from None
        except (csv.Error, ValueError) as error:
            raise ValueError(f"{printable(path)} cannot be used: {error_text(error)}") from None


def _lines(file: TextIO) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_RECORD + 1):
        number += 1
        if len(line) > MAX_RECORD:
            raise ValueError(f"line {number} has more than {MAX_RECORD} characters")
        if number > _MAX_LINES:
            raise ValueError(f"it has more than {_MAX_LINES} lines")
        if "\0" in line:
            raise ValueError(f"line {number} holds a NUL")
        yield line


def _chosen(names: Sequence[str], choose: Choose) -> Sequence[str]:
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"it has {len(names)} columns, more than {MAX_COLUMNS}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the column '{printable(twice, 80)}' twice")
    return choose(names)


def _check_count(count: int, fields: int) -> None:
    if count >= MAX_ROWS:
        raise ValueError(f"it has more than {MAX_ROWS} rows")
    if count * fields >= MAX_FIELDS:
        raise ValueError(f"it has more than {MAX_FIELDS} fields")


def _integer(digits: str) -> int:
    if len(digits) > 20:  # 64 bits; Python takes quadratic time for long ones
        raise ValueError(f"it holds an integer of {len(digits)} digits")
    return int(digits)


def _constant(name: str) -> float:
    raise ValueError(f"it holds {name}")


_SPACES = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=_constant)


class _JsonStream:
    """Characters of a JSON file, of which a bounded part is in memory."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.text, self.at, self.ended = file, "", 0, False

    def _fill(self, count: int) -> None:
        more = self.file.read(count)
        self.text, self.at, self.ended = self.text[self.at :] + more, 0, not more

    def peek(self) -> str:
        """Return the next character that is no space; an empty text at the end."""
        while True:
            found = _SPACES.match(self.text, self.at)
            self.at = found.end() if found else self.at
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self._fill(_CHUNK)

    def take(self) -> dict[str, Any]:
        """Return the object that begins here."""
        while True:
            try:
                row, self.at = _DECODER.raw_decode(self.text, self.at)
                return row
            except json.JSONDecodeError as error:
                there = len(self.text) - self.at
                if self.ended or there > MAX_RECORD:
                    long = "" if self.ended else f", or an object of more than {there} characters"
                    raise ValueError(f"{error.msg}{long}") from None
                self._fill(max(there, _CHUNK))
            except RecursionError:
                raise ValueError("it nests too deeply") from None


def _objects(file: TextIO) -> Iterator[dict[str, Any]]:
    """Yield the objects of a stream: one after the other, or in one list."""
    stream = _JsonStream(file)
    listed = stream.peek() == "["
    stream.at += listed
    while stream.peek() == "{":
        yield stream.take()
        if listed and stream.peek() != ",":
            break
        stream.at += listed
    if listed and stream.peek() != "]":
        raise ValueError("its list of objects is damaged")
    stream.at += listed
    if rest := stream.peek():
        raise ValueError(f"it must hold objects alone, it holds {rest!r}")
