"""``run_jobs``: jobs run once, in the order given, continued after a cut; on every engine."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from d3fast.results.engine import run_jobs
from d3fast.results.jobs import RunDir
from d3fast.results.pool import local_engine

# Adding an engine is adding a line.
ENGINES = {
    "inline": lambda shared: local_engine(shared, ["cpu"]),
    "processes": lambda shared: local_engine(shared, ["cpu", "cpu"]),
}


@dataclass(frozen=True)
class Counts:
    """Appends each run to a file, so that runs in other processes are seen too."""

    number: int
    folder: str
    factor: int = 2
    fails: bool = False
    kind: ClassVar[str] = "Counts"

    @property
    def name(self):
        return f"count{self.number}"

    def run(self, run_dir, progress):
        with (Path(self.folder) / "runs.txt").open("a") as file:
            file.write(f"{self.number}\n")
        if self.fails:
            raise ValueError(f"job {self.number} cannot be run")
        return {"number": self.number, "value": self.number * self.factor}


@pytest.fixture
def jobs(tmp_path):
    """Jobs that give 0, 2, 4, 6."""
    return [Counts(number, str(tmp_path)) for number in range(4)]


def runs(folder: Path):
    path = folder / "runs.txt"
    return sorted(map(int, path.read_text().split())) if path.exists() else []


@pytest.fixture(scope="module", params=ENGINES)
def engine(request, tmp_path_factory):
    with ENGINES[request.param](RunDir(tmp_path_factory.mktemp("shared"))) as made:
        yield made


def values(jobs, engine, folder, **options):
    return [row["value"] for row in run_jobs(jobs, engine, folder, progress=False, **options)]


def test_rows_come_in_the_order_of_the_jobs_and_a_second_run_computes_nothing(
    tmp_path, jobs, engine
):
    assert values(jobs, engine, tmp_path) == [0, 2, 4, 6]
    assert values(jobs[::-1], engine, tmp_path) == [6, 4, 2, 0]
    assert runs(tmp_path) == [0, 1, 2, 3]


def test_without_a_folder_every_job_runs_and_nothing_is_written(tmp_path, jobs, engine):
    for _ in range(2):
        assert values(jobs[:2], engine, None) == [0, 2]
    assert runs(tmp_path) == [0, 0, 1, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["runs.txt"]


def test_no_jobs_give_no_rows(tmp_path, engine):
    assert values([], engine, tmp_path) == []


def test_equal_jobs_run_once(tmp_path, jobs, engine):
    assert values([jobs[1], jobs[1]], engine, tmp_path) == [2, 2]
    assert runs(tmp_path) == [1]


def test_an_error_reaches_the_caller_and_finished_rows_are_kept(tmp_path, jobs, engine):
    failing = [*jobs[:2], replace(jobs[2], fails=True), jobs[3]]
    with pytest.raises(ValueError, match=r"^job 2 cannot be run$"):
        values(failing, engine, tmp_path)
    assert values(jobs, engine, tmp_path) == [0, 2, 4, 6]
    assert [runs(tmp_path).count(number) for number in (0, 1, 2)] == [1, 1, 2]


def test_a_changed_setting_is_another_job(tmp_path, jobs, engine):
    values(jobs[:1], engine, tmp_path)
    assert values([replace(job, factor=5) for job in jobs[:2]], engine, tmp_path) == [0, 5]
    assert runs(tmp_path) == [0, 0, 1]


def test_every_row_is_reported_once_cached_ones_first(tmp_path, jobs, engine):
    seen = []
    values(jobs[2:3], engine, tmp_path)
    values(jobs, engine, tmp_path, on_row=lambda job, row: seen.append((job.number, row["value"])))
    assert seen[0] == (2, 4)
    assert sorted(seen) == [(0, 0), (1, 2), (2, 4), (3, 6)]


def test_no_job_starts_after_the_deadline(tmp_path, jobs, engine):
    values(jobs[:1], engine, tmp_path)
    assert values(jobs, engine, tmp_path, deadline=0.0) == [0]
    assert runs(tmp_path) == [0]
