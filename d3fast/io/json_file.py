# SPDX-License-Identifier: Apache-2.0
"""JSON from strangers: bounded in bytes and depth, with each name once.

Python's parser takes the last of two equal names where others take the first, accepts NaN, and
recurses as deep as the text says. The readers of hub folders and of safetensors headers use the
functions here.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from d3fast.io.untrusted import error_text, printable, read_limited

_MAX_FILE = 2**22  # bytes: names for 100,000 classes; 150 MB as Python objects
_MAX_DEPTH = 32


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = dict(pairs)
    if len(names) < len(pairs):
        raise ValueError("it holds a name twice")
    return names


def _no_constant(text: str) -> None:
    raise ValueError(f"it holds {text}")


def _check_depth(held: Any) -> None:
    level: list[Any] = [held]
    for _ in range(_MAX_DEPTH):
        inner = [v for v in level if isinstance(v, dict | list)]
        level = [v for one in inner for v in _values(one)]
        if not level:
            return
    raise ValueError("it is nested too deeply")


def _values(held: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return held.values() if isinstance(held, dict) else held


def parse_object(raw: bytes) -> dict[str, Any]:
    """Return a JSON object.

    Args:
        raw: the text in UTF-8; the caller limits its length.

    Raises:
        ValueError: other JSON or none; a name that stands twice in an object; NaN or Infinity; more
            than 32 levels.

    Example:
        >>> parse_object(b'{"a": [1]}')
        {'a': [1]}
        >>> parse_object(b'{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ValueError: it holds a name twice
    """
    try:
        held = json.loads(raw, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(held, dict):
        raise ValueError("it is not a JSON object")
    _check_depth(held)
    return held


def read_object(path: Path, limit: int = _MAX_FILE) -> dict[str, Any]:
    """Return the JSON object of a file.

    Args:
        path: a regular file in UTF-8.
        limit: maximum number of bytes.

    Raises:
        ValueError: a longer file or a special one; see ``parse_object``. The message names the
            file.
        OSError: a file that is missing or cannot be read.
    """
    raw = read_limited(path, limit)
    try:
        return parse_object(raw)
    except ValueError as error:
        raise ValueError(f"{printable(path)} is not usable JSON: {error_text(error)}") from None
