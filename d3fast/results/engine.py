# SPDX-License-Identifier: Apache-2.0
"""Engines run jobs; ``run_jobs`` runs a list of jobs on an engine and returns their rows.

An engine is an interface of two calls: ``submit`` a job under a key, ``take`` the key and result
of a job that has ended. ``d3fast.results.pool`` has the engine of this machine's processes,
``d3fast.results.ray_engine`` that of a Ray cluster; another engine is one file. Jobs, the jobs that
they need, and their cache are in ``d3fast.results.jobs``.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from d3fast.io.files import make_folder
from d3fast.results.jobs import (
    CachedJob,
    Job,
    cache_folder,
    finished_row,
    key_of,
    needs_of,
    write_row,
)
from d3fast.results.run_store import RunStore, StoredJob
from d3fast.runtime.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import RenderableType


class Engine(Protocol):
    """A place where jobs run; used in a ``with`` block, whose end stops what still runs."""

    @property
    def capacity(self) -> int:
        """Number of jobs that run at once."""

    @property
    def graph(self) -> bool:
        """Whether a job may be submitted before the jobs that it needs have ended."""

    def submit(self, key: str, job: Job, needs: Sequence[str] = ()) -> None:
        """Start a job, or queue it where ``capacity`` jobs run already.

        Args:
            key: of the job.
            job: the job.
            needs: keys of the jobs that it needs, submitted before. Unless ``graph``, they have
                ended.
        """

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
    store: RunStore | None = None,
    progress: bool = True,
    title: str = "jobs",
    on_row: Callable[[Job, Any], None] | None = None,
    deadline: float | None = None,
    above: "Callable[[], RenderableType] | None" = None,
) -> list[Any]:
    """Return the rows of all jobs, in their order.

    A job starts as soon as those of the other jobs that it needs have ended.

    Args:
        jobs: what to run.
        engine: where to run it.
        folder: run directory with the cache: jobs that are in it are not run again, and new rows
            are written to it. ``None`` runs every job and writes nothing.
        store: keeps rows and files for workers that do not share the folder's disk; rows that are
            in it count as finished.
        progress: show a progress bar with the remaining time.
        title: text of the bar.
        on_row: called in this process with each job and its row, cached ones first.
        deadline: by ``time.monotonic``; no job starts after it, and jobs that did not start have
            no row in the result.
        above: called at each refresh of the bar for what is shown above it.

    Raises:
        ValueError, OSError, RuntimeError: what ``Engine.take`` raises. No other job is started.
            With a cache the running jobs finish first, so that their rows are kept; without one
            they are left to the end of the engine's ``with`` block. An engine that takes a whole
            graph cancels what has not ended.
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
        stored = set(keys) if store is None else store.fetch_rows(keys, folder)
        for index, job in enumerate(jobs):
            if keys[index] in stored and (row := finished_row(job, folder)) is not None:
                add(index, row)
    left: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        if index not in rows:
            left.setdefault(key, []).append(index)
    waiting = {key: _kept(jobs[places[0]], folder, store) for key, places in left.items()}
    needs = {key: _needed(jobs[places[0]], left) for key, places in left.items()}
    with progress_bar(title, len(jobs), progress, done=len(rows), above=above) as advance:
        for key, row in _results(engine, waiting, needs, deadline, drain=folder is not None):
            if folder is not None and store is not None:
                write_row(jobs[left[key][0]], folder, row)
            for index in left[key]:
                add(index, row)
                advance(f"{title}: {jobs[index].name}")
    return [rows[index] for index in sorted(rows)]


def _kept(job: Job, folder: Path | None, store: RunStore | None) -> Job:
    """Return a job that keeps its row and its files."""
    if store is not None:
        return StoredJob(job, store)
    return job if folder is None else CachedJob(job, folder)


def _needed(job: Job, left: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the keys of the jobs that a job needs, of those that are left to run."""
    return tuple(key for key in map(key_of, needs_of(job)) if key in left)


def _results(
    engine: Engine,
    jobs: dict[str, Job],
    needs: Mapping[str, Sequence[str]],
    deadline: float | None,
    drain: bool,
) -> Iterator[tuple[str, Any]]:
    """Yield (key, row) of jobs as they end; on an error let the running jobs end if ``drain``."""
    waiting, ended, running = dict(jobs), set[str](), 0
    # A submitted graph cannot be stopped at a deadline: jobs that are queued would start after it.
    whole = engine.graph and deadline is None

    def ready(key: str) -> bool:
        return all(other in ended or (whole and other not in waiting) for other in needs[key])

    def submit() -> int:
        if deadline is not None and time.monotonic() >= deadline:
            return 0
        count = 0
        for key in list(waiting):
            # No more than the capacity: an engine may be unable to withdraw a queued job.
            if not whole and running + count >= engine.capacity:
                break
            if ready(key):
                engine.submit(key, waiting.pop(key), needs[key])
                count += 1
        return count

    running = submit()
    while running:
        running -= 1
        try:
            key, row = engine.take()
        except Exception:
            for _ in range(running if drain and not engine.graph else 0):
                with suppress(Exception):
                    engine.take()
            raise
        yield key, row
        ended.add(key)
        running += submit()
