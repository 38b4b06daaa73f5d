# SPDX-License-Identifier: Apache-2.0
"""Default folders of data sets that a user has downloaded."""

import os
from pathlib import Path


def cache_dir(name: str) -> Path:
    """Return ``${XDG_CACHE_HOME:-~/.cache}/d3fast/NAME``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "d3fast" / name
