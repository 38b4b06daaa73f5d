# SPDX-License-Identifier: Apache-2.0
"""Paths inside a data folder that came from a stranger.

Links that leave the folder, devices and pipes are refused; text files are read up to a limit.
"""

import os
from pathlib import Path

from d3fast.io.untrusted import printable, read_limited


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
