"""``run_jobs``: jobs run once, in the order given, continued after a cut; on every engine."""

import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from d3fast.results.engine import run_jobs
from d3fast.results.jobs import RunDir
from d3fast.results.pool import local_engine
from d3fast.results.ray_engine import RayEngine
from tests.results.fake_ray import FakeRay
from tests.results.graph_jobs import TOTALS, chain, ran

# Adding an engine is adding a line.
ENGINES = {
    "inline": lambda shared: local_engine(shared, ["cpu"]),
    "processes": lambda shared: local_engine(shared, ["cpu", "cpu"]),
    "ray": lambda shared: RayEngine(pickle.dumps(shared), ["auto"], 1, None, 1.0, FakeRay()),
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


def test_a_job_runs_after_those_it_needs_wherever_it_stands_in_the_list(tmp_path):
    with local_engine(RunDir(tmp_path), ["cpu", "cpu"]) as engine:
        jobs = chain(tmp_path / "log.txt")
        rows = run_jobs(jobs[::-1], engine, tmp_path, progress=False)
    assert [row["total"] for row in rows] == TOTALS[::-1]
    order = ran(tmp_path / "log.txt")
    assert order[:2] == ["twin", "suspect"]
    assert order.index("repair1") < order.index("test")


def test_a_job_finds_the_rows_of_an_earlier_run(tmp_path):
    log = tmp_path / "log.txt"
    with local_engine(RunDir(tmp_path), ["cpu"]) as engine:
        for jobs in (chain(log)[:3], chain(log)[-1:]):
            rows = run_jobs(jobs, engine, tmp_path, progress=False)
    assert rows == [{"total": TOTALS[-1]}]
    assert ran(log) == ["twin", "suspect", "repair1", "test"]


def test_no_job_runs_after_one_that_failed(tmp_path):
    twin, *others = chain(tmp_path / "log.txt")
    suspect = replace(others[0], needs=(replace(twin, fails=True),))
    with (
        local_engine(RunDir(tmp_path), ["cpu", "cpu"]) as engine,
        pytest.raises(ValueError, match="twin cannot be run"),
    ):
        run_jobs([*suspect.needs, suspect], engine, tmp_path, progress=False)
    assert ran(tmp_path / "log.txt") == ["twin"]
