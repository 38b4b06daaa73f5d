# SPDX-License-Identifier: Apache-2.0
"""Paths inside a data folder that came from a stranger.

Links that leave the folder, devices and pipes are refused; text files are read up to a limit.
"""

import os
from pathlib import Path

from d3fast.io.untrusted import printable, read_limited

_MAX_PATH = 4096


def check_inside(path: Path, root: Path) -> None:
    """Raise ``ValueError`` if ``path`` is a link to a target outside ``root``.

    Only the last component is checked: callers walk down from ``root`` and check each step.
    """
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(os.path.realpath(root)):
            raise ValueError(f"{printable(path)} is a link that leads out of {printable(root)}")


def checked_file(path: Path, root: Path) -> Path:
    """Return ``path`` if it is a regular file below ``root``.

    Raises:
        ValueError: a link out of ``root``; a missing or special file.
    """
    check_inside(path, root)
    if not path.exists():
        raise ValueError(f"{printable(path)} is missing")
    if not path.is_file():
        raise ValueError(f"{printable(path)} is not a regular file")
    return path


def checked_folder(path: Path, root: Path) -> Path:
    """Return ``path`` if it is a folder below ``root``.

    Raises:
        ValueError: a link out of ``root``; a missing path or a file.
    """
    check_inside(path, root)
    if not path.is_dir():
        raise ValueError(f"{printable(path)} is missing or not a folder")
    return path


def read_lines(path: Path, limit: int = 2**26) -> list[str]:
    """Return the non-blank lines of a UTF-8 text file, without line ends.

    Raises:
        ValueError: a file of more than ``limit`` bytes, a special file, or one that is not text.
        OSError: a file that cannot be read.
    """
    try:
        text = read_limited(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{printable(path)} is not UTF-8 text: {error.reason}") from None
    return [line for line in text.splitlines() if line.strip()]


def check_plain_name(name: str, table: Path) -> str:
    """Return ``name`` if it can only name a file inside its folder.

    Args:
        name: a file name.
        table: the file that lists it, for the error.

    Raises:
        ValueError: a path, a hidden name or an empty one.
    """
    if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
        raise ValueError(
            f"{printable(table)} lists the file {printable(repr(name), 80)}, which is not a plain "
            "name"
        )
    return name


def file_inside(text: str, root: Path) -> Path:
    """Return the regular file that a relative path names, below ``root`` all the way.

    Args:
        text: a path with ``/`` between its parts, as a table of a data set holds it.
        root: the folder that it counts from.

    Raises:
        ValueError: an absolute path, one with ``..``, backslashes or hidden names; a link out of
            ``root``; a missing or special file.
    """
    parts = text.split("/")
    if not 0 < len(text) <= _MAX_PATH or any(
        part in ("", "..") or part.startswith(".") or "\\" in part or "\0" in part for part in parts
    ):
        raise ValueError(f"{printable(repr(text), 80)} is no relative path of a file")
    path = root
    for part in parts[:-1]:
        path = checked_folder(path / part, root)
    return checked_file(path / parts[-1], root)
