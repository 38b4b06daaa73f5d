# SPDX-License-Identifier: Apache-2.0
"""Cells of a benchmark: independent pieces of work, run side by side, never run twice.

A cell is a frozen dataclass whose fields say everything that its result depends on. Its result is
one JSON file, named after the cell and a hash of those fields: it is there whole or not at all, so
a run that was cut off goes on where it stopped, and a changed setting is another cell.
"""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

import torch

from d3fast.files import folder as make_folder
from d3fast.files import whole_file
from d3fast.progress import progress_bar

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where cells run; their results do not depend on it.

    Attributes:
        folder: the benchmark's: ``cells/``, and what else cells keep there.
        device: where to compute.
        data_dir: folder of the data set's files, where it has files.
    """

    folder: Path
    device: str = "cpu"
    data_dir: Path | None = None


class Cell(Protocol):
    """The shape of a cell: a frozen dataclass that can be pickled."""

    @property
    def name(self) -> str:
        """Short, for people; fit for a file name."""

    def run(self, place: Place, progress: bool) -> Row:
        """Do the work."""


def settings_of(cell: Cell) -> dict[str, Any]:
    """All that a cell's result depends on, as JSON knows it."""
    fields = dataclasses.asdict(cell)  # type: ignore[call-overload]
    return json.loads(json.dumps({"cell": type(cell).__name__, **fields}))


def key_of(cell: Cell) -> str:
    """Name and hash of the settings: the stem of the cell's files."""
    text = json.dumps(settings_of(cell), sort_keys=True)
    return f"{cell.name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def finished(cell: Cell, folder: Path) -> Row | None:
    """The row of a cell that was run before, or ``None``; a damaged file counts as not run."""
    path = folder / "cells" / f"{key_of(cell)}.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(document, dict) or document.get("settings") != settings_of(cell):
        return None
    row = document.get("row")
    return row if isinstance(row, dict) else None


def _work(cell: Cell, place: Place, progress: bool) -> Row:
    row = cell.run(place, progress)
    text = json.dumps({"settings": settings_of(cell), "row": row}, indent=2, allow_nan=False)
    with whole_file(place.folder / "cells" / f"{key_of(cell)}.json") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return json.loads(text)["row"]  # as the next run will read it


def run_cells(
    cells: Sequence[Cell],
    place: Place,
    *,
    workers: int = 1,
    progress: bool = True,
    title: str = "cells",
    on_row: Callable[[Cell, Row], None] | None = None,
) -> list[Row]:
    """Rows of all cells, in their order; those that are finished are read instead of run.

    Args:
        cells: what to run.
        place: where; its folder is made if missing.
        workers: processes, one thread of torch each; 1 runs in this process.
        progress: show a bar, with the time that remains.
        title: what the bar says.
        on_row: called in this process for every row, finished ones first.

    Raises:
        ValueError, OSError: what a cell raised; cells that are running finish first, no other
            is begun.
    """
    make_folder(place.folder / "cells")
    rows: dict[int, Row] = {}
    with progress_bar(title, len(cells), progress) as advance:

        def done(index: int, row: Row) -> None:
            rows[index] = row
            advance(f"{title}: {cells[index].name}")
            if on_row is not None:
                on_row(cells[index], row)

        for index, cell in enumerate(cells):
            if (row := finished(cell, place.folder)) is not None:
                done(index, row)
        left = [index for index in range(len(cells)) if index not in rows]
        if workers == 1:
            for index in left:
                done(index, _work(cells[index], place, progress))
        elif left:
            _run_beside(cells, left, place, workers, done)
    return [rows[index] for index in range(len(cells))]


def _begin_work() -> None:
    """Prepare a worker: one thread of torch, and no life of its own."""
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def outlive() -> None:
        parent.join()  # returns when it is gone, however it went
        os._exit(1)

    threading.Thread(target=outlive, daemon=True).start()


def _run_beside(
    cells: Sequence[Cell],
    left: Sequence[int],
    place: Place,
    workers: int,
    done: Callable[[int, Row], None],
) -> None:
    # Spawned, not forked: torch's thread pools do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_work)
    try:
        running: dict[Future[Row], int] = {
            pool.submit(_work, cells[index], place, False): index for index in left
        }
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                done(running.pop(future), future.result())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
