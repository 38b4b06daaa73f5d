# SPDX-License-Identifier: Apache-2.0
"""Headers of the pages of a Parquet file: what a decoder would allocate, before it does.

The footer of a file says how long a column is, but a decoder believes the header of each page: a
page of 200 bytes may claim two gigabytes. Headers are structs of Thrift's compact protocol
(github.com/apache/parquet-format, ``PageHeader``); all but three of their fields are skipped.
"""

from collections.abc import Iterator
from dataclasses import dataclass

DICTIONARY_PAGE = 2
MAX_PAGES = 2**16  # of one column in one row group
_MAX_DEPTH = 8
_TYPE, _UNPACKED, _PACKED = 1, 2, 3  # field ids
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 12
_NUMBERS = (4, 5, 6)


@dataclass(frozen=True)
class Page:
    """One page of a column.

    Attributes:
        kind: ``DICTIONARY_PAGE`` or another number.
        unpacked: bytes after decompression, according to its header.
    """

    kind: int
    unpacked: int


def read_pages(content: memoryview, start: int, length: int) -> Iterator[Page]:
    """Yield the pages of a column chunk.

    Args:
        content: of the file.
        start: offset of the first page's header.
        length: bytes of all pages with their headers.

    Raises:
        ValueError: headers that are damaged, or pages that lead out of the chunk; more than 65,536
            pages.
    """
    end = start + length
    if not 0 <= start <= end <= len(content):
        raise ValueError("its pages are not in the file")
    reader = _Compact(content, start)
    for _ in range(MAX_PAGES):
        if reader.at >= end:
            return
        fields = reader.numbers()
        packed, unpacked = fields.get(_PACKED, -1), fields.get(_UNPACKED, -1)
        if packed < 0 or unpacked < 0 or reader.at + packed > end:
            raise ValueError("a page of it is not in the file")
        yield Page(fields.get(_TYPE, -1), unpacked)
        reader.at += packed
    raise ValueError(f"it has more than {MAX_PAGES} pages")


class _Compact:
    """A reader of Thrift's compact protocol that keeps integers and skips everything else."""

    def __init__(self, content: memoryview, at: int) -> None:
        self.content, self.at = content, at

    def numbers(self, depth: int = 0) -> dict[int, int]:
        """Read a struct; return its integers by field id."""
        if depth > _MAX_DEPTH:
            raise ValueError("the header of a page nests too deeply")
        found: dict[int, int] = {}
        field = 0
        while (head := self._byte()) & 15 != _STOP:
            field = field + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            if kind in _NUMBERS:
                found[field] = self._integer()
            else:
                self._skip(kind, depth)
        return found

    def _byte(self) -> int:
        if self.at >= len(self.content):
            raise ValueError("the header of a page is not in the file")
        self.at += 1
        return self.content[self.at - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("the header of a page holds a number that does not end")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, kind: int, depth: int) -> None:
        if kind in (_TRUE, _FALSE):  # the value is the type
            return
        if kind == _BYTE:
            self.at += 1
        elif kind in _NUMBERS:
            self._varint()
        elif kind == _DOUBLE:
            self.at += 8
        elif kind == _BINARY:
            length = self._varint()  # first: it moves self.at
            self.at += length
        elif kind == _STRUCT:
            self.numbers(depth + 1)
        elif kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            for _ in range(min(count, len(self.content))):
                self._skip(_BYTE if head & 15 in (_TRUE, _FALSE) else head & 15, depth + 1)
        else:
            raise ValueError("the header of a page is damaged")
