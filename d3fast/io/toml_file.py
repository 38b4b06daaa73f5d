# SPDX-License-Identifier: Apache-2.0
"""A TOML file of settings, which may come from a stranger."""

import sys
from pathlib import Path
from typing import Any

from d3fast.io.untrusted import error_text, printable, read_limited
from d3fast.runtime.extras import require

_MAX_FILE = 2**16
_MAX_DOTS = 1000  # the parser takes quadratic time on dotted keys


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises:
        ValueError: a file of more than 64 KiB, one that is not TOML, or one with more than 1,000
            dots in a line.
        OSError: a file that cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.toml")
        ...     _ = file.write_text("lr = 0.05")
        ...     read_toml(file)
        {'lr': 0.05}
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        require(printable(path), "tomli")
        import tomli as tomllib

    content = read_limited(path, _MAX_FILE)
    if max(line.count(b".") for line in content.split(b"\n")) > _MAX_DOTS:
        raise ValueError(f"{printable(path)} has more than {_MAX_DOTS} dots in a line")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError(f"{printable(path)} is not TOML: nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, integers past 4,300 digits
        raise ValueError(f"{printable(path)} is not TOML: {error_text(error)}") from None
