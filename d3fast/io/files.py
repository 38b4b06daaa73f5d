# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole or not at all, and what names their content."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from d3fast.io.untrusted import open_regular

_PIECE = 2**20


def folder(path: str | Path) -> Path:
    """Make a folder, with those above it, unless it is there.

    Raises:
        ValueError: something that is no folder is in the way.
        OSError: the folder cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"cannot make folder {path}: a file is in the way") from None
    return path


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Write to a temporary neighbour inside a ``with`` block; it replaces ``path`` at the end.

    If the block raises (Ctrl-C included), ``path`` is as it was before and nothing is left over.

    Args:
        path: the file to write. Its folder must exist.

    Yields:
        The path to write to.

    Raises:
        ValueError: the folder does not exist, or ``path`` is a folder or a device.
        OSError: the folder cannot be written to.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    if path.exists() and not path.is_file():  # /dev/null would become a file, for everyone
        what = "a folder" if path.is_dir() else "no regular file"
        raise ValueError(f"cannot write {path}: it is {what}")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes files that only their owner can read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits; as ``sha256sum`` prints it.

    Args:
        path: a regular file of any length; it is read piece by piece.

    Raises:
        ValueError: a pipe, a device or a socket.
        OSError: a folder, or a file that is not there or cannot be read.

    Example:
        >>> with tempfile.TemporaryDirectory() as place:
        ...     file = Path(place, "abc")
        ...     _ = file.write_bytes(b"abc")
        ...     sha256(file)[:16]
        'ba7816bf8f01cfea'
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
