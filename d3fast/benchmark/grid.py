# SPDX-License-Identifier: Apache-2.0
"""``d3fast benchmark``: attacks x defences x seeds, every number beside that of a clean model.

Five kinds of jobs: clean models, suspects, repairs, the relearning and the re-activation test. A
job starts as soon as those whose files it needs have ended. A run may be interrupted, limited to
some minutes, or split by suspects over calls or machines; a finished job is never run again.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from d3fast.benchmark.plan import BenchmarkPlan, BenchmarkPreset, PlannedJob, plan_jobs
from d3fast.benchmark.reactivation_jobs import ReactivationJob
from d3fast.benchmark.relearning_jobs import RelearningJob
from d3fast.results.engine import run_jobs
from d3fast.results.engines import LOCAL, EngineChoice
from d3fast.results.jobs import Job, Row, RunDir, finished_row, key_of
from d3fast.results.schema.benchmark import DefenseRow, GridRow, SuspectRow
from d3fast.results.table import Column, mean_table, to_rich
from d3fast.runtime.checks import check_integer, check_number

if TYPE_CHECKING:
    from rich.table import Table

_LIVE = (
    Column("acc", "ACC %", scale=100),
    Column("asr", "ASR %", scale=100),
    Column("floor", "floor", scale=100),
    Column("lift", "lift", scale=100),
)


@dataclass(frozen=True)
class GridResult:
    """The rows of a benchmark.

    Attributes:
        rows: of every finished job, those of other runs in the same folder included.
        missing: number of jobs that are not finished.
    """

    rows: list[GridRow]
    missing: int


def run_grid(
    preset: BenchmarkPreset,
    run_dir: RunDir,
    *,
    seeds: Sequence[int],
    devices: Sequence[str] = ("cpu",),
    engine: EngineChoice = LOCAL,
    part: tuple[int, int] | None = None,
    minutes: float | None = None,
    progress: bool = True,
) -> GridResult:
    """Run the jobs that are not finished, each after those that it needs.

    Args:
        preset: the jobs.
        run_dir: keeps rows, models and triggers; the next run continues from there.
        seeds: the seeds.
        devices: one worker each, with one thread on a CPU.
        engine: where the jobs run.
        part: (i, n) runs the i-th of n parts of the suspects; see ``BenchmarkPlan.part``.
        minutes: no job starts after so many minutes.
        progress: show the means so far and a bar on standard error, if that is a terminal.

    Returns:
        The rows of all finished jobs, those of other parts in the same folder included.

    Raises:
        ValueError: data missing or damaged; a part that does not exist.
    """
    if minutes is not None:
        check_number("minutes", minutes)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    whole = plan_jobs(preset, seeds)
    own = whole
    if part is not None:
        check_integer("the number of parts", part[1], 1)
        if not 1 <= part[0] <= part[1]:
            raise ValueError(f"part must be 1..{part[1]} of {part[1]}, got {part[0]}")
        own = whole.part(*part)
    kept = [p.job.subject for p in own.tests if isinstance(p.job, (RelearningJob, ReactivationJob))]
    run_dir = replace(run_dir, keep=frozenset(map(key_of, kept)))
    live = _Live(own.all)
    with engine.start(run_dir, devices, progress=progress) as started:
        run_jobs(
            list({key_of(p.job): p.job for p in own.all}.values()),
            started,
            run_dir.folder,
            store=engine.run_store(run_dir.folder),
            progress=progress,
            title="benchmark",
            deadline=deadline,
            on_row=live.add,
            above=live.table,
        )
    return _result(whole, run_dir)


def _result(whole: BenchmarkPlan, run_dir: RunDir) -> GridResult:
    """Return the finished rows of a plan."""
    known = {key_of(p.job): finished_row(p.job, run_dir.folder) for p in whole.all}
    rows = [
        planned.row(row) for planned in whole.all if (row := known[key_of(planned.job)]) is not None
    ]
    return GridResult(rows, sum(row is None for row in known.values()))


class _Live:
    """The means per defence over the finished jobs, for the terminal."""

    def __init__(self, planned: Iterable[PlannedJob]) -> None:
        self.planned = {key_of(p.job): p for p in planned if p.labels["ablation"] is None}
        self.groups: dict[str, list[Row]] = {}  # JSON of the rows

    def add(self, job: Job, row: Row) -> None:
        planned = self.planned.get(key_of(job))
        made = None if planned is None else planned.row(row)
        if isinstance(made, (SuspectRow, DefenseRow)) and not made.refused:
            self.groups.setdefault(made.defense, []).append(made.to_row())

    def table(self) -> "Table":
        return to_rich(mean_table(_LIVE, self.groups), "means so far")
