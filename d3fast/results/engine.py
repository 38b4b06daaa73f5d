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
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from d3fast.io.files import atomic_write
from d3fast.io.files import folder as make_folder
from d3fast.runtime.processes import end_with_parent
from d3fast.runtime.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where cells run; their results do not depend on it.

    Attributes:
        folder: the benchmark's: ``cells/``, and what else cells keep there.
        device: where to compute.
        data_dir: folder of the data set's files, where it has files.
        keep: keys of cells that are to keep their model, of those that do so only if asked.
    """

    folder: Path
    device: str = "cpu"
    data_dir: Path | None = None
    keep: frozenset[str] = frozenset()


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
    with atomic_write(place.folder / "cells" / f"{key_of(cell)}.json") as temporary:
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
    deadline: float | None = None,
    above: "Callable[[], RenderableType] | None" = None,
) -> list[Row]:
    """Rows of all cells, in their order; those that are finished are read instead of run.

    Args:
        cells: what to run.
        place: where; its folder is made if missing.
        workers: processes, one thread of torch each; 1 runs in this process.
        progress: show a bar, with the time that remains.
        title: what the bar says.
        on_row: called in this process for every row, finished ones first.
        deadline: by ``time.monotonic``; no cell is begun after it, and those that were not have
            no row.
        above: what is shown above the bar, asked anew at every refresh.

    Raises:
        ValueError, OSError: what a cell raised; cells that are running finish first, no other
            is begun.
    """
    make_folder(place.folder / "cells")
    rows: dict[int, Row] = {}

    def done(index: int, row: Row) -> None:
        rows[index] = row
        if on_row is not None:
            on_row(cells[index], row)

    for index, cell in enumerate(cells):
        if (row := finished(cell, place.folder)) is not None:
            done(index, row)
    left = [index for index in range(len(cells)) if index not in rows]
    with progress_bar(title, len(cells), progress, done=len(rows), above=above) as advance:
        results = (
            _run_here(cells, left, place, progress, deadline)
            if workers == 1
            else _run_beside(cells, left, place, workers, deadline)
        )
        for index, row in results:
            done(index, row)
            advance(f"{title}: {cells[index].name}")
    return [rows[index] for index in sorted(rows)]


def _before(deadline: float | None) -> bool:
    return deadline is None or time.monotonic() < deadline


def _run_here(
    cells: Sequence[Cell], left: Sequence[int], place: Place, progress: bool, deadline: float | None
) -> Iterator[tuple[int, Row]]:
    for index in left:
        if not _before(deadline):
            return
        yield index, _work(cells[index], place, progress)


def _begin_work() -> None:
    """Prepare a worker: one thread of torch, and no life of its own."""
    torch.set_num_threads(1)
    end_with_parent()


def _run_beside(
    cells: Sequence[Cell],
    left: Sequence[int],
    place: Place,
    workers: int,
    deadline: float | None,
) -> Iterator[tuple[int, Row]]:
    if not left or not _before(deadline):
        return
    # Spawned, not forked: torch's thread pools do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_work)
    waiting = iter(left)
    running: dict[Future[Row], int] = {}

    def begin(most: int) -> None:
        if _before(deadline):
            for index in islice(waiting, most):
                running[pool.submit(_work, cells[index], place, False)] = index

    try:
        begin(workers)  # no more than that: what was handed to the pool is past calling off
        while running:
            over = wait(running, return_when=FIRST_COMPLETED).done
            begun = [(running.pop(future), future) for future in over]
            for index, future in begun:
                yield index, future.result()
            begin(len(begun))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
