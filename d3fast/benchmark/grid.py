# SPDX-License-Identifier: Apache-2.0
"""``d3fast benchmark``: attacks x defences x seeds, every number beside the clean twin's.

Four kinds of cells, each on the files of those before it: clean twins, suspects, repairs, and the
relearning test. A run may be cut off, or told to end after some minutes, and it may be split by
suspects over calls or machines; what is finished is never computed again.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from d3fast.benchmark.plan import GridPreset, Plan, Planned, plan
from d3fast.benchmark.relearning_jobs import RelearnCell
from d3fast.results.engine import Cell, Place, Row, finished, key_of, run_cells
from d3fast.results.table import Column, mean_table, to_rich
from d3fast.runtime.checks import check_integer, check_number

if TYPE_CHECKING:
    from rich.table import Table

_LIVE = (Column("acc", "ACC %", scale=100), Column("asr_excess", "ASR − floor", scale=100))


@dataclass(frozen=True)
class Outcome:
    """What is known after a run.

    Attributes:
        rows: of every finished cell of the benchmark, whoever ran it.
        missing: how many cells are not finished.
    """

    rows: list[Row]
    missing: int


def run_grid(
    preset: GridPreset,
    place: Place,
    *,
    seeds: Sequence[int],
    workers: int = 1,
    part: tuple[int, int] | None = None,
    minutes: float | None = None,
    progress: bool = True,
) -> Outcome:
    """Run what is not finished yet: twins, suspects, repairs, relearning.

    Args:
        preset: what to run.
        place: its folder keeps cells, models and triggers; the next run goes on from there.
        seeds: which seeds.
        workers: cells that are run side by side, one thread each.
        part: (i, n) runs what hangs on every n-th suspect, from the i-th on.
        minutes: no cell is begun after so many.
        progress: show the means so far and a bar on standard error, if that is a terminal.

    Returns:
        The rows of all finished cells, those of other parts in the same folder included.

    Raises:
        ValueError: data missing or damaged; a part that does not exist.
    """
    if minutes is not None:
        check_number("minutes", minutes)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    whole = plan(preset, seeds)
    own = whole
    if part is not None:
        check_integer("the number of parts", part[1], 1)
        if not 1 <= part[0] <= part[1]:
            raise ValueError(f"part must be 1..{part[1]} of {part[1]}, got {part[0]}")
        own = whole.part(*part)
    kept = [p.cell.subject for p in own.relearning if isinstance(p.cell, RelearnCell)]
    place = replace(place, keep=frozenset(map(key_of, kept)))
    live = _Live(own.all)
    steps = {
        "clean twins": own.twins,
        "suspects": own.suspects,
        "repairs": own.repairs,
        "relearning": own.relearning,
    }
    for title, planned in steps.items():
        cells = list({key_of(p.cell): p.cell for p in planned}.values())
        if not cells:
            continue
        rows = run_cells(
            cells,
            place,
            workers=workers,
            progress=progress,
            title=title,
            deadline=deadline,
            on_row=live.add,
            above=live.table,
        )
        if len(rows) < len(cells):
            break
    return _outcome(whole, place)


def _outcome(whole: Plan, place: Place) -> Outcome:
    """What of a plan is finished."""
    known = {key_of(p.cell): finished(p.cell, place.folder) for p in whole.all}
    rows = [
        planned.row(row)
        for planned in whole.all
        if (row := known[key_of(planned.cell)]) is not None
    ]
    return Outcome(rows, sum(row is None for row in known.values()))


class _Live:
    """Means per defence over the cells finished so far."""

    def __init__(self, planned: Iterable[Planned]) -> None:
        self.planned = {key_of(p.cell): p for p in planned if p.marks["ablation"] is None}
        self.groups: dict[str, list[Row]] = {}

    def add(self, cell: Cell, row: Row) -> None:
        planned = self.planned.get(key_of(cell))
        if planned is None or planned.marks["kind"] not in ("suspect", "repair"):
            return
        if not row.get("refused"):
            self.groups.setdefault(planned.marks["defense"], []).append(planned.row(row))

    def table(self) -> "Table":
        return to_rich(mean_table(_LIVE, self.groups), "means so far")
