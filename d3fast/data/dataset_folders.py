# SPDX-License-Identifier: Apache-2.0
"""Folders of samples: class folders, tables, and what the ``datasets`` library writes.

::

    dataset_dict.json, <split>/state.json, <split>/*.arrow     save_to_disk of several splits
    state.json, *.arrow                                        save_to_disk of one
    [data/]train-00000-of-00002.parquet, test.csv, …           tables, their split in their names
    [<split>/]metadata.csv or .jsonl or .parquet               an imagefolder with metadata
    [train/, test/]<class>/<image>                             see ``d3fast.data.folders``
    <image>                                                    unlabelled

The first form that fits counts. ``validation``, ``valid``, ``val`` and ``dev`` are one split.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from d3fast.data.columns import ANY_COLUMNS, Columns
from d3fast.data.folders import class_folders, entries, flat_images
from d3fast.data.records import Records
from d3fast.data.tables import is_table, table_records
from d3fast.io.json_file import read_object
from d3fast.io.paths import check_plain_name, checked_file, checked_folder
from d3fast.io.untrusted import printable

_SPLIT = re.compile(r"(train|test|validation|valid|val|dev)(?![a-z])", re.IGNORECASE)
_VALIDATION = ("validation", "valid", "val", "dev")
_MAX_JSON = 2**20
_MAX_FILES = 10_000

# A file of samples and its split, if the file or its folder names one.
Part = tuple[str | None, Path]


def folder_records(
    path: Path,
    columns: Columns = ANY_COLUMNS,
    *,
    split: str | None = None,
    max_memory: int,
) -> Records:
    """List the samples of a folder.

    Args:
        path: the folder.
        columns: of the tables in it.
        split: the split to take; all of them if ``None``.
        max_memory: limit on the bytes of samples inside of tables and archives.

    Raises:
        ValueError: no form of the list above, or files that the readers refuse; a split that the
            folder does not have.
        OSError: a file that cannot be opened.
    """
    parts = _saved(path) or _tables(path)
    if not parts:
        return _images(path, split)
    if len(parts) > _MAX_FILES:
        raise ValueError(f"{printable(path)} holds more than {_MAX_FILES} files of samples")
    counts = Counter(name for name, _ in parts if name is not None)
    if split is not None:
        parts = [part for part in parts if part[0] == _split_of(split)]
        if not parts:
            raise _no_split(path, split, counts)
    records = table_records([file for _, file in parts], columns, max_memory=max_memory)
    if split is None and len(counts) > 1:
        note = f"All splits are taken: {', '.join(sorted(counts))} (--split takes one)."
        records = replace(records, notes=(*records.notes, note))
    return records


def _split_of(name: str) -> str | None:
    """Return the split that a file or a folder name begins with."""
    found = _SPLIT.match(name)
    if found is None:
        return None
    split = found[1].lower()
    return "validation" if split in _VALIDATION else split


def _no_split(path: Path, split: str, known: Counter[str]) -> ValueError:
    has = ", ".join(sorted(known)) or "none"
    return ValueError(
        f"{printable(path)} has no split '{printable(split, 80)}' (--split), it has {has}"
    )


def _images(path: Path, split: str | None) -> Records:
    """Return images in class folders, or unlabelled ones."""
    if split is not None:
        folders = {_split_of(entry.name): entry for entry in entries(path) if entry.is_dir()}
        folders.pop(None, None)
        if _split_of(split) not in folders:
            raise _no_split(path, split, Counter(name for name in folders if name is not None))
        path = checked_folder(folders[_split_of(split)], path)
    return flat_images(path) or class_folders(path)


def _tables(path: Path) -> list[Part]:
    """Return the tables of a folder, of its folder ``data`` and of its splits' folders."""
    found = entries(path)
    folders = [entry for entry in found if entry.is_dir()]
    places: list[Part] = [(None, path)]
    places += [
        (_split_of(entry.name), checked_folder(entry, path))
        for entry in folders
        if entry.name == "data" or _split_of(entry.name)
    ]
    # Beside class folders a table is something else, unless it says what the images are.
    only_metadata = len(places) - 1 < len(folders)
    parts: list[Part] = []
    for split, place in places:
        files = [entry for entry in entries(place) if not entry.is_dir() and is_table(entry)]
        metadata = [file for file in files if file.stem.lower() == "metadata"]
        if not metadata and not only_metadata:
            metadata = [file for file in files if file.suffix.lower() != ".json"]
        parts += [(split or _split_of(file.name), checked_file(file, path)) for file in metadata]
    return parts


def _saved(path: Path) -> list[Part]:
    """Return the Arrow files of a folder that ``datasets`` saved."""
    if (path / "dataset_dict.json").exists():
        table = path / "dataset_dict.json"
        splits = _listed(read_object(checked_file(table, path), _MAX_JSON), "splits", table)
        folders = [(split, checked_folder(path / split, path)) for split in splits]
        return [
            (_split_of(split) or split, file)
            for split, folder in folders
            for file in _arrow_files(folder, path)
        ]
    if (path / "state.json").exists():
        return [(None, file) for file in _arrow_files(path, path)]
    return []


def _arrow_files(folder: Path, root: Path) -> list[Path]:
    state = folder / "state.json"
    held = read_object(checked_file(state, root), _MAX_JSON).get("_data_files")
    names = [
        file.get("filename") if isinstance(file, dict) else None
        for file in (held if isinstance(held, list) else [None])
    ]
    listed = _listed({"_data_files": names}, "_data_files", state)
    return [checked_file(folder / name, root) for name in listed]


def _listed(held: dict[str, Any], key: str, path: Path) -> Sequence[str]:
    """Return a list of plain names."""
    names = held.get(key)
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f"{printable(path)} must list names under '{key}'")
    return [check_plain_name(name, path) for name in names]
