# SPDX-License-Identifier: Apache-2.0
"""Models of the Hugging Face hub: from its cache on this machine, or else downloaded there.

Only files of known names are fetched: JSON, tokenizers and weights, never code. Pickled weights are
fetched where a repository has no others; ``d3fast.io`` reads them without unpickling.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from d3fast.hub.folder_writer import COPIED
from d3fast.io.hub_files import PICKLED, SAFETENSORS
from d3fast.io.untrusted import error_text, printable

PREFIX = "hf://"
_PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_NAME = re.compile(rf"({_PART}/{_PART})(?:@({_PART}(?:/{_PART})*))?")
_SAFE = [*COPIED, SAFETENSORS, f"{SAFETENSORS}.index.json", "model-*-of-*.safetensors"]
_PICKLES = [PICKLED, f"{PICKLED}.index.json", "pytorch_model-*-of-*.bin"]


def _snapshots() -> Callable[..., str]:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(
            "a model of the hub needs huggingface_hub: pip install 'd3fast[hub]'"
        ) from None
    return snapshot_download


def _has_weights(folder: Path) -> bool:
    names = (SAFETENSORS, PICKLED)
    return any((folder / f"{n}{end}").exists() for n in names for end in ("", ".index.json"))


def _from_cache(name: str, revision: str | None) -> Path | None:
    """Return a snapshot with weights, without the network."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        found = Path(_snapshots()(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError):
        return None
    return found if _has_weights(found) else None


def cached(model: str) -> Path | None:
    """Return the snapshot of ``org/name`` or ``org/name@revision`` in the hub's cache, if any.

    Raises:
        Nothing: other text, or no ``huggingface_hub``, gives ``None``.
    """
    named = _NAME.fullmatch(model)
    if named is None:
        return None
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        return None
    return _from_cache(named[1], named[2])


def downloaded(model: str) -> Path:
    """Return the snapshot of ``hf://org/name`` or ``hf://org/name@revision``.

    The cache is asked first, then the hub.

    Raises:
        ValueError: another form; no ``huggingface_hub``; a repository that is missing, closed, or
            without weights; no connection.
    """
    named = _NAME.fullmatch(model.removeprefix(PREFIX))
    if named is None:
        raise ValueError(
            f"'{printable(model, 200)}' must have the form {PREFIX}org/name or "
            f"{PREFIX}org/name@revision"
        )
    fetch = _snapshots()
    found = _from_cache(named[1], named[2])
    if found is not None:
        return found
    options: dict[str, Any] = {"revision": named[2]}
    try:
        folder = Path(fetch(named[1], allow_patterns=_SAFE, **options))
        if not _has_weights(folder):
            folder = Path(fetch(named[1], allow_patterns=_PICKLES, **options))
    except Exception as error:  # of the network, the hub, or the disk
        raise ValueError(
            f"'{printable(model, 200)}' is not in the cache and cannot be downloaded: "
            f"{error_text(error)} (without a connection, copy the folder here and name its path)"
        ) from None
    if not _has_weights(folder):
        raise ValueError(f"'{printable(model, 200)}' has no {SAFETENSORS} or {PICKLED}")
    return folder
