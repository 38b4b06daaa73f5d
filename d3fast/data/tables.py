# SPDX-License-Identifier: Apache-2.0
"""Samples in tables: texts, images or paths to image files, one per row, with labels or without.

    FILE.csv, .tsv, .json, .jsonl, .ndjson, .parquet, .arrow
    FILE.tar, .tar.gz, .tgz, .zip        see ``d3fast.data.archives``

Paths of image files count from the folder of the table and may not lead out of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3fast.data.archives import ARCHIVES, archive_table
from d3fast.data.columns import ANY_COLUMNS, Chosen, Columns, choose_columns
from d3fast.data.records import FileSource, Records, Source, number_labels
from d3fast.io.arrow import read_columnar
from d3fast.io.images import image_channels
from d3fast.io.paths import file_inside
from d3fast.io.tables import Table, read_csv, read_json
from d3fast.io.untrusted import printable

TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", *ARCHIVES)


@dataclass(frozen=True, eq=False)
class BytesSource:
    """An image file inside of another file, in memory.

    Attributes:
        name: what errors call it.
        content: its bytes.
    """

    name: str
    content: bytes

    def read(self) -> bytes:
        """Return the bytes."""
        return self.content


def is_table(path: Path) -> bool:
    """Return whether the name of a file ends like that of a table."""
    return path.name.lower().endswith(TABLES)


def table_records(
    paths: Sequence[Path], columns: Columns = ANY_COLUMNS, *, max_memory: int
) -> Records:
    """List the samples of tables with the same columns.

    Args:
        paths: at least one file, with names for which ``is_table`` holds.
        columns: what the user said of the columns.
        max_memory: limit on the bytes of the samples as they are in the files.

    Raises:
        ValueError: files that the readers refuse; columns that cannot be told; a row without a
            label; a path that leads out of its folder.
        OSError: a file that cannot be opened.
    """
    inputs: list[Source | str] = []
    cells: list[Any] = []
    names: tuple[str, ...] | None = None
    chosen: Chosen | None = None
    for path in paths:
        table, chosen = _read(path, columns, max_memory, chosen)
        try:
            inputs += [
                _image(cell, path, row) if chosen.images else _text(cell, row)
                for row, cell in enumerate(table.columns[chosen.samples], start=1)
            ]
        except ValueError as error:
            raise ValueError(f"{printable(path)} cannot be used: {error}") from None
        held = sum(len(item) if isinstance(item, str) else _held(item) for item in inputs)
        if held > max_memory:
            raise ValueError(
                f"{printable(path)} and the files before it hold samples of {held} bytes, more "
                f"than {max_memory} (--max-memory)"
            )
        if chosen.label is not None:
            cells += table.columns[chosen.label]
            names = names or table.names.get(chosen.label)
    assert chosen is not None  # at least one file
    where = printable(paths[0]) if len(paths) == 1 else printable(paths[0].parent)
    try:
        if cells and len(cells) != len(inputs):
            raise ValueError("some of its files have labels and others have none")
        classes, labels = _labels(cells, names)
        channels = None
        if chosen.images and inputs:
            first = inputs[0]
            assert not isinstance(first, str)
            channels = image_channels(first.read(), first.name)
        return Records(inputs, labels, classes, channels, chosen.notes)
    except ValueError as error:
        raise ValueError(f"{where} cannot be used: {error}") from None


def _read(
    path: Path, columns: Columns, max_memory: int, before: Chosen | None
) -> tuple[Table, Chosen]:
    """Return the chosen columns of one file; all files have those of the first."""
    found: list[Chosen] = [] if before is None else [before]

    def choose(names: Sequence[str]) -> Sequence[str]:
        if not found:
            found.append(choose_columns(names, columns))
        wanted = [found[0].samples, *([found[0].label] if found[0].label is not None else [])]
        missing = next((name for name in wanted if name not in names), None)
        if missing is not None:
            raise ValueError(f"it has no column '{printable(missing, 80)}'")
        return wanted

    name = path.name.lower()
    if name.endswith((".csv", ".tsv")):
        table = read_csv(path, choose)
    elif name.endswith((".json", ".jsonl", ".ndjson")):
        table = read_json(path, choose)
    elif name.endswith((".parquet", ".arrow")):
        table = read_columnar(path, choose, max_memory)
    else:
        return archive_table(path, max_memory)
    if not found:
        raise ValueError(f"{printable(path)} has no rows")
    return table, found[0]


def _held(source: Source) -> int:
    """Return the bytes of an image that are in memory."""
    return len(source.content) if isinstance(source, BytesSource) else 0


def _text(cell: Any, row: int) -> str:
    if not isinstance(cell, str):
        raise ValueError(f"row {row} has {printable(repr(cell), 80)} in place of a text")
    try:
        cell.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no tokenizer takes
        raise ValueError(f"the text of row {row} is no Unicode text") from None
    return cell


def _image(cell: Any, path: Path, row: int) -> Source:
    """Return an image file from a path, from bytes, or from what ``datasets`` writes."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return BytesSource(f"{path}: row {row}", cell)
    if not isinstance(cell, str):
        raise ValueError(f"row {row} has no image")
    try:
        return FileSource(file_inside(cell, path.parent))
    except ValueError as error:
        raise ValueError(f"row {row}: {error}") from None


def _labels(
    cells: list[Any], names: tuple[str, ...] | None
) -> tuple[tuple[str, ...] | None, Tensor | None]:
    """Return the classes and the labels; ``None`` for both if there are none."""
    if not cells or all(cell == -1 for cell in cells):  # -1: ``datasets`` has no label
        return None, None
    if names is not None:
        wrong = next((c for c in cells if type(c) is not int or not 0 <= c < len(names)), None)
        if wrong is not None or None in cells:
            raise ValueError(f"labels must be in 0..{len(names) - 1}, got {wrong!r:.40}")
        return names, torch.tensor(cells)
    return number_labels([_label(cell, row) for row, cell in enumerate(cells, start=1)])


def _label(cell: Any, row: int) -> str:
    """Return a label as a text; pandas writes integers with a gap as 1.0."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    if isinstance(cell, int):
        return str(cell)
    if not isinstance(cell, str) or not cell.strip():
        raise ValueError(f"row {row} has no label")
    return cell.strip()
