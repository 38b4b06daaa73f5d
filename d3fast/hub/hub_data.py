# SPDX-License-Identifier: Apache-2.0
"""Data sets of the Hugging Face hub: files of samples are downloaded, never code."""

import re
from pathlib import Path
from typing import Any

from d3fast.data.locations import cache_dir
from d3fast.data.tables import TABLES
from d3fast.io.untrusted import error_text, printable

PREFIX = "hf://datasets/"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"{_PART}/{_PART}")


def downloaded_data(name: str, max_memory: int) -> Path:
    """Return a folder with the tables and archives of a data set ``hf://datasets/org/name``.

    The folder is ``${XDG_CACHE_HOME:-~/.cache}/d3fast/hub/org--name``; the hub's library leaves
    out what is there already.

    Args:
        name: of the data set.
        max_memory: limit on the bytes of its files.

    Raises:
        ValueError: another form of name; no ``huggingface_hub``; a data set that is missing,
            closed, too large, or has no files of samples; no connection.
    """
    short = name.removeprefix(PREFIX)
    shown = printable(name, 200)
    if not _NAME.fullmatch(short):
        raise ValueError(f"'{shown}' must have the form {PREFIX}org/name")
    try:
        import huggingface_hub as hub
    except ImportError:
        raise ValueError(f"'{shown}' needs huggingface_hub: pip install 'd3fast[hub]'") from None
    folder = cache_dir("hub") / short.replace("/", "--")
    try:
        size, files = _listed(hub.HfApi().dataset_info(short, files_metadata=True))
        if files and size <= max_memory:
            hub.snapshot_download(
                short, repo_type="dataset", allow_patterns=files, local_dir=str(folder)
            )
    except Exception as error:  # of the network, the hub, or the disk
        raise ValueError(
            f"'{shown}' cannot be downloaded: {error_text(error)} (without a connection, copy its "
            "files here and name their folder)"
        ) from None
    if not files:
        raise ValueError(f"'{shown}' has no files of samples ({', '.join(TABLES)})")
    if size > max_memory:
        raise ValueError(
            f"'{shown}' has {size} bytes, more than {max_memory} (--max-memory): copy some of its "
            "files here and name their folder"
        )
    return folder


def _listed(info: Any) -> tuple[int, list[str]]:
    """Return the bytes and the names of the files of samples in a repository."""
    files = [
        file
        for file in info.siblings or ()
        if file.rfilename.lower().endswith(TABLES) and not file.rfilename.endswith("_infos.json")
    ]
    return sum(file.size or 0 for file in files), [file.rfilename for file in files]
