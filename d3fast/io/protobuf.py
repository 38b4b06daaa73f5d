# SPDX-License-Identifier: Apache-2.0
"""Messages of Protocol Buffers, field by field, without a schema compiler and without copies.

A parser of a library makes an object for each message: two bytes of a file become a hundred bytes
of memory. Here a nested message is a range of bytes until somebody walks it, and the number of all
fields of a file is limited.

Source: the encoding as the documentation of Protocol Buffers describes it.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from d3fast.io.torch_files import read_at

_MAX_FIELDS = 2**20  # packed numbers count too
_MAX_READ = 2**26  # bytes of texts and packed numbers together
_MAX_VARINT = 10  # bytes
_HEAD = 2 * _MAX_VARINT  # of a field: its key, and a number or a length
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Span:
    """A range of bytes of a file: a nested message, a text, or packed numbers."""

    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number of up to 64 bits and the position behind it."""
    value = shift = 0
    for position in range(at, min(at + _MAX_VARINT, len(content))):
        byte = content[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (2**64 - 1), position + 1
        shift += 7
    raise ValueError("a number of it does not end")


def signed(value: int) -> int:
    """Return a number of 64 bits as a signed one.

    Example:
        >>> signed(2**64 - 1), signed(5)
        (-1, 5)
    """
    return value - 2**64 if value >= 2**63 else value


class Messages:
    """Walks the messages of a file.

    Args:
        file: must stay open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._fields_left = _MAX_FIELDS
        self._bytes_left = _MAX_READ
        self.whole = Span(0, file.seek(0, os.SEEK_END))

    def fields(self, message: Span) -> Iterator[tuple[int, int | Span]]:
        """Yield the number of each field and its value: a number, or bytes.

        Raises:
            ValueError: a damaged message, or more than 2^20 fields in all messages of the file.
        """
        at = message.begin
        while at < message.end:
            self._count(1)
            self._file.seek(at)
            head = self._file.read(min(_HEAD, message.end - at))
            key, used = _varint(head, 0)
            value: int | Span
            kind = key & 7
            if kind == _VARINT:
                value, used = _varint(head, used)
            elif kind == _BYTES:
                length, used = _varint(head, used)
                value = Span(at + used, at + used + length)
                used += length
            elif kind in (_FIXED32, _FIXED64):
                size = 4 if kind == _FIXED32 else 8
                value = int.from_bytes(head[used : used + size], "little")
                used += size
            else:
                raise ValueError(f"it has a field of kind {kind}")
            at += used
            if at > message.end:
                raise ValueError("a field of it is longer than its message")
            yield key >> 3, value

    def _count(self, fields: int) -> None:
        self._fields_left -= fields
        if self._fields_left < 0:
            raise ValueError(f"it has more than {_MAX_FIELDS} fields and numbers")

    def content(self, span: Span, limit: int) -> bytes:
        """Return the bytes of a range.

        Raises:
            ValueError: more than ``limit``, or more than 64 MiB in all calls.
        """
        self._bytes_left -= len(span)
        if self._bytes_left < 0:
            raise ValueError(f"its texts and lists have more than {_MAX_READ} bytes")
        if len(span) > limit:
            raise ValueError(f"a field of it has {len(span)} bytes, more than {limit}")
        return bytes(read_at(self._file, span.begin, len(span)))

    def text(self, span: Span, limit: int) -> str:
        """Return a text; ``ValueError`` for one that is too long or no UTF-8."""
        return self.content(span, limit).decode("utf-8")

    def numbers(self, span: Span, limit: int) -> list[int]:
        """Return packed signed numbers of varying length, at most ``limit``."""
        content = self.content(span, limit * _MAX_VARINT)
        found, at = [], 0
        while at < len(content):
            value, at = _varint(content, at)
            found.append(signed(value))
            if len(found) > limit:
                raise ValueError(f"it has a list of more than {limit} numbers")
        self._count(len(found))
        return found

    def floats(self, span: Span, limit: int) -> list[float]:
        """Return packed 32-bit numbers, at most ``limit``."""
        content = self.content(span, 4 * limit)
        if len(content) % 4:
            raise ValueError("a list of its numbers is cut")
        self._count(len(content) // 4)
        return list(struct.unpack(f"<{len(content) // 4}f", content))
