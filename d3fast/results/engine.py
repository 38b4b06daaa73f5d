# SPDX-License-Identifier: Apache-2.0
"""Engines run jobs; ``run_jobs`` runs a list of jobs on an engine and returns their rows.

An engine is an interface of two calls: ``submit`` a job under a key, ``take`` the key and result
of a job that has ended. ``d3fast.results.pool`` has the engine of this machine's processes;
another engine is one file. Jobs and their cache are in ``d3fast.results.jobs``.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from d3fast.io.files import make_folder
from d3fast.results.jobs import CachedJob, Job, cache_folder, finished_row, key_of
from d3fast.runtime.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import RenderableType


class Engine(Protocol):
    """A place where jobs run; used in a ``with`` block, whose end stops what still runs."""

    @property
    def capacity(self) -> int:
        """Number of jobs that run at once."""

    def submit(self, key: str, job: Job) -> None:
        """Start a job, or queue it where ``capacity`` jobs run already."""

    def take(self) -> tuple[str, Any]:
        """Wait for the next job to end and return its key and its result.

        Raises:
            ValueError, OSError: the job raised one of them; a worker ended.
            RuntimeError: the job raised another exception in another process.
        """

    def __enter__(self) -> "Engine":
        """Return the engine."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Stop all jobs and free the workers."""


def run_jobs(
    jobs: Sequence[Job],
    engine: Engine,
    folder: Path | None = None,
    *,
    progress: bool = True,
    title: str = "jobs",
    on_row: Callable[[Job, Any], None] | None = None,
    deadline: float | None = None,
    above: "Callable[[], RenderableType] | None" = None,
) -> list[Any]:
    """Return the rows of all jobs, in their order.

    Args:
        jobs: what to run.
        engine: where to run it.
        folder: run directory with the cache: jobs that are in it are not run again, and new rows
            are written to it. ``None`` runs every job and writes nothing.
        progress: show a progress bar with the remaining time.
        title: text of the bar.
        on_row: called in this process with each job and its row, cached ones first.
        deadline: by ``time.monotonic``; no job starts after it, and jobs that did not start have
            no row in the result.
        above: called at each refresh of the bar for what is shown above it.

    Raises:
        ValueError, OSError, RuntimeError: what ``Engine.take`` raises. No other job is started.
            With a cache the running jobs finish first, so that their rows are kept; without one
            they are left to the end of the engine's ``with`` block.
    """
    rows: dict[int, Any] = {}

    def add(index: int, row: Any) -> None:
        rows[index] = row
        if on_row is not None:
            on_row(jobs[index], row)

    keys = list(map(str, range(len(jobs))))
    if folder is not None:
        make_folder(cache_folder(folder))
        keys = list(map(key_of, jobs))
        for index, job in enumerate(jobs):
            if (row := finished_row(job, folder)) is not None:
                add(index, row)
    left: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        if index not in rows:
            left.setdefault(key, []).append(index)
    waiting = {
        key: jobs[places[0]] if folder is None else CachedJob(jobs[places[0]], folder)
        for key, places in left.items()
    }
    with progress_bar(title, len(jobs), progress, done=len(rows), above=above) as advance:
        for key, row in _results(engine, waiting, deadline, drain=folder is not None):
            for index in left[key]:
                add(index, row)
                advance(f"{title}: {jobs[index].name}")
    return [rows[index] for index in sorted(rows)]


def _results(
    engine: Engine, jobs: dict[str, Job], deadline: float | None, drain: bool
) -> Iterator[tuple[str, Any]]:
    """Yield (key, row) of jobs as they end; on an error let the running jobs end if ``drain``."""
    waiting, running = iter(jobs.items()), 0

    def submit(most: int) -> int:
        if deadline is not None and time.monotonic() >= deadline:
            return 0
        chosen = list(islice(waiting, most))
        for key, job in chosen:
            engine.submit(key, job)
        return len(chosen)

    # No more than the capacity at once: an engine may be unable to withdraw a queued job.
    running = submit(engine.capacity)
    while running:
        running -= 1
        try:
            result = engine.take()
        except Exception:
            for _ in range(running if drain else 0):
                with suppress(Exception):
                    engine.take()
            raise
        yield result
        running += submit(1)
