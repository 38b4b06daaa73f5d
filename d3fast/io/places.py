# SPDX-License-Identifier: Apache-2.0
"""Where data sets' files may be, and how a file that may be hostile is opened.

A data folder is given by the user, what is in it came from elsewhere: links out of it are refused,
files that are none (devices, pipes) too, and nothing is read past a limit.
"""

import os
from pathlib import Path

from d3fast.io.untrusted import printable, read_limited


def cache_dir(name: str) -> Path:
    """Where a user may keep a data set: ``${XDG_CACHE_HOME:-~/.cache}/d3fast/NAME``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "d3fast" / name


def check_inside(path: Path, root: Path) -> None:
    """Raise ``ValueError`` if the path is a link that leads out of ``root``.

    Only the last part is looked at: callers walk down from ``root`` and check every step.
    """
    if path.is_symlink():
        target = Path(os.path.realpath(path))
        if not target.is_relative_to(os.path.realpath(root)):
            raise ValueError(f"{printable(path)} is a link that leads out of {printable(root)}")


def checked_file(path: Path, root: Path) -> Path:
    """The path, if it is a regular file below ``root``.

    Raises:
        ValueError: a link out of ``root``; no file, or a special one.
    """
    check_inside(path, root)
    if not path.exists():
        raise ValueError(f"{printable(path)} is missing")
    if not path.is_file():
        raise ValueError(f"{printable(path)} is no regular file")
    return path


def checked_folder(path: Path, root: Path) -> Path:
    """The path, if it is a folder below ``root``.

    Raises:
        ValueError: a link out of ``root``; no folder.
    """
    check_inside(path, root)
    if not path.is_dir():
        raise ValueError(f"{printable(path)} is missing or no folder")
    return path


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes.

    Raises:
        ValueError: a longer file, or none.
        OSError: a file that cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"{printable(path)} is missing or no regular file")
    return read_limited(path, limit)


def read_lines(path: Path, limit: int = 2**26) -> list[str]:
    """The lines of a UTF-8 text file without their ends; blank ones are left out.

    Raises:
        ValueError: a file longer than ``limit`` bytes, none, or one that is no text.
        OSError: a file that cannot be read.
    """
    try:
        text = read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{printable(path)} is no UTF-8 text: {error.reason}") from None
    return [line for line in text.splitlines() if line.strip()]


def check_plain_name(name: str, where: Path) -> str:
    """The name, if it is that of a file in the folder itself.

    Raises:
        ValueError: a path, a hidden or an empty name; ``where`` is the file it was read from.
    """
    if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
        raise ValueError(
            f"{printable(where)} names the file {printable(repr(name), 80)}, which is no plain name"
        )
    return name
