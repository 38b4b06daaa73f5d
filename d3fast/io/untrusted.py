# SPDX-License-Identifier: Apache-2.0
"""Basics of every reader: open regular files only, read up to a limit, print names safely.

A file name may hold newlines and terminal escape sequences, a pipe may block a reader forever, a
parser's message may repeat what it was given. All readers of d3fast open files and word their
errors with the functions of this module.
"""

import errno
import os
import stat
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

_MAX_TEXT = 300
_MAX_NAME = 200
# Marks that change the reading direction of what follows them.
_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_MAX_ZIP_DIRECTORY = 2**23  # bytes: 100,000 members; a second, 100 MB


def printable(text: object, most: int = _MAX_TEXT) -> str:
    r"""Return a text as one line without control characters, its middle cut out if it is long.

    Args:
        text: any object with a text.
        most: number of characters to keep.

    Example:
        >>> printable("a\nb\x1b[2J.png")
        'a\\nb\\x1b[2J.png'
        >>> printable("x" * 1000, most=9)
        'xxxx…xxxx'
    """
    try:
        text = str(text)
    except ValueError:  # an integer of more than 4,300 digits has no text
        text = f"a very long {type(text).__name__}"
    if len(text) > most:
        half = (most - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return "".join(repr(c)[1:-1] if _is_control(c) else c for c in text)


def is_displayable(name: str) -> bool:
    """Return whether a name has at most 200 characters, none of which controls a terminal."""
    # isprintable() is fast and decides almost every name.
    return len(name) <= _MAX_NAME and (name.isprintable() or not any(map(_is_control, name)))


def _is_control(character: str) -> bool:
    """Return whether a character controls a terminal, ends a line or turns the direction."""
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or character in _BIDI


def error_text(error: BaseException) -> str:
    r"""Return the message of an exception as one line, or its type where it has no message.

    Example:
        >>> error_text(KeyError()), error_text(ValueError("first\nsecond"))
        ('KeyError', 'first second')
    """
    return printable(" ".join(str(error)[: 2 * _MAX_TEXT].split())) or type(error).__name__


def open_regular(path: str | Path) -> BinaryIO:
    """Open a regular file for reading; a pipe or a device is refused without waiting.

    Raises:
        ValueError: a pipe, a device or a socket.
        OSError: a folder, or a file that is missing or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise ValueError(f"{printable(path)} is not a regular file")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_limited(path: str | Path, limit: int) -> bytes:
    """Return the content of a regular file of at most ``limit`` bytes.

    Raises:
        ValueError: a longer file, or a special one.
        OSError: a folder, or a file that is missing or cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{printable(path)} is longer than {limit} bytes")
    return content


class _SmallReads:
    """A file that refuses to read more at once than a zip directory may have."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        if size < 0:  # zipfile reads to the end of the file to find the directory
            here = self.tell()
            size = self.seek(0, os.SEEK_END) - here
            self.seek(here)
        if size > _MAX_ZIP_DIRECTORY:
            raise ValueError(f"its directory is longer than {_MAX_ZIP_DIRECTORY} bytes")
        return self.file.read(size)


def zip_members(file: BinaryIO) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """Return a zip archive and its members by name, with the sizes that the archive claims.

    Args:
        file: open at its start; it stays open when the archive is closed.

    Raises:
        ValueError: not an archive, a damaged one, one with a directory of more than 8 MiB, or one
            that holds a name twice: readers differ in which of the two they take.
    """
    small: Any = _SmallReads(file)
    try:
        archive = zipfile.ZipFile(small)
    except Exception as error:  # zipfile raises all kinds of exceptions on bad bytes
        raise ValueError(error_text(error)) from None
    name, count = Counter(archive.namelist()).most_common(1)[0] if archive.namelist() else ("", 0)
    if count > 1:
        raise ValueError(f"it holds '{printable(name, 80)}' twice")
    return archive, {info.filename: info for info in archive.infolist()}
