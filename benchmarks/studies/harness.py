# SPDX-License-Identifier: Apache-2.0
"""Parts that the studies share: a run directory with workers, and the result file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from d3fast.io.files import make_folder
from d3fast.results.engine import Engine, run_jobs
from d3fast.results.jobs import Job, RunDir
from d3fast.results.pool import local_engine
from d3fast.results.store import Results

RESULTS = Path(__file__).resolve().parent.parent / "results"


@dataclass(frozen=True)
class Workers:
    """Worker processes with the run directory that holds finished jobs.

    Attributes:
        run_dir: finished jobs are read from here and not run again.
        engine: runs the jobs, one thread each.
    """

    run_dir: RunDir
    engine: Engine

    def run(self, jobs: Sequence[Job], title: str) -> list[Any]:
        """Return the rows of all jobs, in their order."""
        return run_jobs(jobs, self.engine, self.run_dir.folder, title=title)


@contextmanager
def start_workers(out: Path, count: int, data_dir: Path | None = None) -> Iterator[Workers]:
    """Start ``count`` CPU workers over the run directory ``out``."""
    torch.set_num_threads(1)
    run_dir = RunDir(make_folder(out), data_dir=data_dir)
    with local_engine(run_dir, ["cpu"] * count, progress=True) as engine:
        yield Workers(run_dir, engine)


def save(
    name: str,
    arguments: str,
    settings: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    path: Path | None = None,
) -> None:
    """Write the result file of a study and print its path.

    Args:
        name: name of the file in ``benchmarks/results``, without its ending.
        arguments: name and options of the study, for the recorded command.
        settings: settings of the run.
        rows: rows of the result.
        path: another path to write to.
    """
    path = path or RESULTS / f"{name}.json"
    Results(f"python -m benchmarks.studies {arguments}", settings, rows).write(path)
    Console().print(f"Written to {path}.", highlight=False)
