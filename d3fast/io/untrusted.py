# SPDX-License-Identifier: Apache-2.0
"""Files from strangers: opened if they are files, read up to a limit, named so that it prints.

A name may hold newlines and escape sequences that a terminal would obey, a pipe may make a reader
wait for ever, a parser's message may repeat what it was given. Every loader of d3fast opens files
and words its errors by what is here.
"""

import errno
import os
import stat
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

_MOST = 300
_LONGEST_NAME = 200
# Bidirectional controls: they change the direction in which a line is read.
_TURNS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_ZIP_DIRECTORY = 2**23  # bytes: 100,000 members; a second, 100 MB


def printable(text: object, most: int = _MOST) -> str:
    r"""A text in one line without control characters; the middle of a long one is left out.

    Example:
        >>> printable("a\nb\x1b[2J.png")
        'a\\nb\\x1b[2J.png'
        >>> printable("x" * 1000, most=9)
        'xxxx…xxxx'
    """
    text = str(text)
    if len(text) > most:
        half = (most - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return "".join(repr(c)[1:-1] if _obeyed(c) else c for c in text)


def is_displayable(name: str) -> bool:
    """Whether a name may be shown as it is: nothing a terminal obeys, at most 200 characters."""
    # The first question is quick, and answers for almost every name.
    return len(name) <= _LONGEST_NAME and (name.isprintable() or not any(map(_obeyed, name)))


def _obeyed(character: str) -> bool:
    """Whether it does something else to a line than being read: controls, ends of lines, turns."""
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or character in _TURNS


def error_text(error: BaseException) -> str:
    r"""What a parser raised, as part of a line: its message, or its type where it has none.

    Example:
        >>> error_text(KeyError()), error_text(ValueError("first\nsecond"))
        ('KeyError', 'first second')
    """
    return printable(" ".join(str(error)[: 2 * _MOST].split())) or type(error).__name__


def open_regular(path: str | Path) -> BinaryIO:
    """Open a file to read bytes from; never waits, as a pipe would make it.

    Raises:
        ValueError: a pipe, a device or a socket.
        OSError: a folder, or a file that is not there or may not be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise ValueError(f"{printable(path)} is no regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_limited(path: str | Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        ValueError: a longer file, or none.
        OSError: a file that cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{printable(path)} is longer than {limit} bytes")
    return content


class _InSmallPieces:
    """A file that nobody reads more from at once than a zip archive's directory may be long."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size < 0:  # the end of the file, where the directory's place is
            here = self.tell()
            size = self.seek(0, os.SEEK_END) - here
            self.seek(here)
        if size > _ZIP_DIRECTORY:
            raise ValueError(f"its directory is longer than {_ZIP_DIRECTORY} bytes")
        return self.file.read(size)


def zip_members(file: BinaryIO) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """A zip archive and its members by name; their sizes are what the archive claims.

    Args:
        file: open at its start; it is left open when the archive is closed.

    Raises:
        ValueError: no archive, a damaged one, one whose directory is longer than 8 MiB or names
            a member twice: readers differ in which of the two they take.
    """
    pieces: Any = _InSmallPieces(file)
    try:
        archive = zipfile.ZipFile(pieces)
    except Exception as error:  # zipfile lets out whatever bad bytes lead to
        raise ValueError(error_text(error)) from None
    name, count = Counter(archive.namelist()).most_common(1)[0] if archive.namelist() else ("", 0)
    if count > 1:
        raise ValueError(f"it holds '{printable(name, 80)}' twice")
    return archive, {info.filename: info for info in archive.infolist()}
