# SPDX-License-Identifier: Apache-2.0
"""Files from strangers: opened if they are files, read up to a limit, named so that it prints.

A name may hold newlines and escape sequences that a terminal would obey, a pipe may make a reader
wait for ever, a parser's complaint may repeat what it was given. Every loader of d3fast opens files
and words its errors by what is here.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_MOST = 300


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
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def complaint(error: BaseException) -> str:
    r"""What a parser raised, as part of a line: its message, or its type where it has none.

    Example:
        >>> complaint(KeyError()), complaint(ValueError("first\nsecond"))
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
