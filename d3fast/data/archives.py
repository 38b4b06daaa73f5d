# SPDX-License-Identifier: Apache-2.0
"""Samples in a .tar, .tar.gz or .zip archive: WebDataset, or one folder per class.

    <key>.jpg + <key>.cls, .txt or .json     WebDataset: a class index or name; "label" of an object
    <key>.txt + <key>.cls or .json           the same with texts
    <class>/<image>                          class folders, at any depth
    <image>                                  unlabelled

Members that are none of these are skipped, names are never used as paths.
"""

from pathlib import Path
from typing import Any

from d3fast.data.columns import LABELS, Chosen
from d3fast.io.archives import read_archive
from d3fast.io.images import SUFFIXES
from d3fast.io.json_file import parse_object
from d3fast.io.tables import Table
from d3fast.io.untrusted import error_text, printable

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".zip")
_MAX_LABEL = 2**16  # bytes of a member that holds one
_BESIDE = (".cls", ".json", ".txt")


def archive_table(path: Path, max_memory: int) -> tuple[Table, Chosen]:
    """Read the samples of an archive.

    Args:
        path: the archive.
        max_memory: limit on the bytes of its samples, unpacked.

    Raises:
        ValueError: as for ``read_archive``; no samples, labels that cannot be read, or samples with
            and without labels.
        OSError: a file that cannot be opened.
    """
    members = read_archive(path, _is_wanted, max_memory)
    try:
        samples: dict[str, dict[str, bytes]] = {}
        for name, content in members.items():
            key, suffix = _key(name)
            samples.setdefault(key, {})[suffix] = content
        return _table(samples)
    except ValueError as error:
        raise ValueError(f"{printable(path)} cannot be used: {error}") from None


def _is_wanted(name: str) -> bool:
    last = name.rpartition("/")[2]
    hidden = any(part.startswith((".", "__MACOSX")) and part != "." for part in name.split("/"))
    return not hidden and _key(last)[1] in (*SUFFIXES, *_BESIDE)


def _key(name: str) -> tuple[str, str]:
    """Return the key of a sample and the suffix; a key ends at the last point.

    WebDataset cuts at the first point; names like ``a.seg.png`` have the key ``a.seg`` here.
    """
    key, point, suffix = name.rpartition(".")
    return key, (point + suffix).lower()


def _table(samples: dict[str, dict[str, bytes]]) -> tuple[Table, Chosen]:
    images = any(suffix in SUFFIXES for parts in samples.values() for suffix in parts)
    kept = SUFFIXES if images else (".txt",)
    labels: list[str | None] = []
    inputs: list[Any] = []
    keys: list[str] = []
    for key, parts in samples.items():
        found = [suffix for suffix in parts if suffix in kept]
        if len(found) > 1:
            raise ValueError(f"'{printable(key, 80)}' has two images")
        if not found:
            continue
        content = parts[found[0]]
        inputs.append({"bytes": content} if images else _decoded(content, key))
        labels.append(_label({s: c for s, c in parts.items() if s != found[0]}, key))
        keys.append(key)
    if not inputs:
        raise ValueError("it holds no images and no texts")
    notes = []
    if all(label is None for label in labels) and images:
        folders = [key.rpartition("/")[0].rpartition("/")[2] for key in keys]
        labels = [folder or None for folder in folders]
        if len(set(folders)) < 2:  # one folder around all of them is no class
            labels = [None] * len(labels)
        else:
            notes = ["Labels are the names of the folders in the archive."]
    missing = sum(label is None for label in labels)
    if 0 < missing < len(labels):
        key = keys[labels.index(None)]
        raise ValueError(f"{missing} samples have no label, the first is '{printable(key, 80)}'")
    columns = {"image" if images else "text": inputs}
    if not missing:
        columns["label"] = list(labels)
    else:
        notes = ["The archive holds no labels."]
    name, label = next(iter(columns)), "label" if not missing else None
    return Table(columns), Chosen(name, label, images, tuple(notes))


def _label(parts: dict[str, bytes], key: str) -> str | None:
    """Return the label beside a sample."""
    for suffix in _BESIDE:
        if suffix not in parts:
            continue
        if len(parts[suffix]) > _MAX_LABEL:
            raise ValueError(f"'{printable(key + suffix, 80)}' has more than {_MAX_LABEL} bytes")
        if suffix != ".json":
            return _decoded(parts[suffix], key).strip() or None
        try:
            fields = parse_object(parts[suffix])
        except ValueError as error:
            raise ValueError(f"'{printable(key, 80)}.json': {error_text(error)}") from None
        found = next((fields[name] for name in LABELS if name in fields), None)
        if isinstance(found, int | str) and str(found):
            return str(found)
    return None


def _decoded(content: bytes, key: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"the text of '{printable(key, 80)}' is not UTF-8") from None
