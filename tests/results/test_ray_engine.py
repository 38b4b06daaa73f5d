"""The engine of a Ray cluster: references, retries, devices, errors in one line; on a fake."""

import pickle
import subprocess
import sys

import pytest

from d3fast.results import ray_engine as module
from d3fast.results.engine import run_jobs
from d3fast.results.jobs import RunDir
from d3fast.results.ray_engine import RETRIES, ray_engine
from d3fast.results.run_store import RunStore
from tests.results.fake_ray import FakeRay
from tests.results.graph_jobs import TOTALS, chain, ran
from tests.results.test_pool import Call, Shared, Unpicklable, break_down, fail, note


@pytest.fixture
def fake(monkeypatch):
    cluster = FakeRay()
    monkeypatch.setattr(module, "_import_ray", lambda: cluster)
    return cluster


def totals(jobs, folder, devices=("auto",), store=None, **options):
    with ray_engine(RunDir(folder), devices) as engine:
        store = store or RunStore(str(folder / "store"))
        rows = run_jobs(jobs, engine, folder, store=store, progress=False, **options)
    return [row["total"] for row in rows]


def test_jobs_are_submitted_at_once_with_references_to_those_they_need(tmp_path, fake):
    assert totals(chain(tmp_path / "log.txt"), tmp_path) == TOTALS
    refs = fake.submitted
    twin, suspect, repair, other, last = refs
    assert [ref.arguments[4:] for ref in refs] == [
        (),
        (twin,),
        (suspect,),
        (suspect,),
        (twin, repair),
    ]
    assert all(len(pickle.loads(ref.value)) == 1 for ref in (other, last))
    assert not fake.connected


@pytest.mark.parametrize("lost", [1, RETRIES])
def test_a_job_whose_worker_was_lost_is_submitted_again_and_finds_its_row(tmp_path, fake, lost):
    fake.lost = lost
    assert totals(chain(tmp_path / "log.txt"), tmp_path) == TOTALS
    assert sorted(ran(tmp_path / "log.txt")) == sorted(j.name for j in chain(tmp_path))


def test_a_job_that_always_loses_its_worker_is_one_line(tmp_path, fake):
    fake.lost = RETRIES + 1
    with pytest.raises(OSError, match=r"^job twin-\w+ was lost 4 times .*: the worker died$"):
        totals(chain(tmp_path / "log.txt"), tmp_path)


def test_an_error_ends_the_jobs_that_need_it_and_cancels_the_rest(tmp_path, fake):
    jobs = chain(tmp_path / "log.txt", fails=True)
    jobs = [jobs[-1], *jobs[:-1]]
    with pytest.raises(ValueError, match=r"^test cannot be run$"):
        totals(jobs, tmp_path)
    assert not fake.connected
    assert ran(tmp_path / "log.txt").count("test") == 1  # errors of a job are not retried


def test_a_defect_in_a_job_keeps_its_traceback(fake):
    with ray_engine(Shared(1)) as engine, pytest.raises(RuntimeError, match="break_down"):
        run_jobs([Call(break_down)], engine, progress=False)


def test_an_input_error_is_one_line(fake):
    with (
        ray_engine(Shared(1)) as engine,
        pytest.raises(ValueError, match=r"^\[Errno 2\] no such data: 'item 7'$"),
    ):
        run_jobs([Call(fail, 7)], engine, progress=False)


def test_a_deadline_keeps_jobs_from_the_queue(tmp_path, fake):
    assert totals(chain(tmp_path / "log.txt"), tmp_path, deadline=0.0) == []
    assert fake.submitted == []


def test_a_job_has_one_thread_and_the_device_of_its_worker(tmp_path, fake):
    with ray_engine(Shared(1)) as engine:
        run_jobs([Call(note, tmp_path)], engine, progress=False)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["1 cpu"]
    assert fake.task_options == {"max_retries": RETRIES, "retry_exceptions": False, "num_cpus": 1}


@pytest.mark.parametrize(
    ("devices", "gpus", "share", "capacity", "needs"),
    [
        (["auto"], 0, 1.0, 2, {"num_cpus": 1}),
        (["cpu"], 0, 1.0, 1, {"num_cpus": 1}),
        (["cpu"] * 9, 0, 1.0, 2, {"num_cpus": 1}),
        (["auto"], 3, 0.5, 6, {"num_gpus": 0.5}),
        (["cuda:0", "cuda:1"], 3, 0.5, 2, {"num_gpus": 0.5}),
        (["cuda:0"], 0, 1.0, 1, {"num_gpus": 1.0}),
    ],
)
def test_devices_say_how_many_jobs_run_at_once(fake, devices, gpus, share, capacity, needs):
    fake.gpus = gpus
    with ray_engine(Shared(1), devices, gpus_per_job=share) as engine:
        assert engine.capacity == capacity
        assert engine.graph == (devices == ["auto"])
    assert needs.items() <= fake.task_options.items()


def test_named_devices_limit_the_jobs_in_the_queue(tmp_path, fake):
    with ray_engine(RunDir(tmp_path), ["cpu"]) as engine:
        submit, most = engine.submit, []

        def count(*given):
            submit(*given)
            most.append(len(engine._running))

        engine.submit = count
        run_jobs(chain(tmp_path / "log.txt"), engine, tmp_path, progress=False)
    assert set(most) == {1}


def test_a_session_that_was_there_before_stays(fake):
    fake.connected = True
    with ray_engine(Shared(1)) as engine:
        engine.submit("a", Call(fail))
    assert fake.connected
    assert len(fake.cancelled) == 1


def test_a_cluster_that_does_not_answer_is_one_line(fake):
    with pytest.raises(OSError, match=r"^no Ray cluster at nowhere:1: nobody answers$"):
        ray_engine(Shared(1), address="nowhere:1").__enter__()


@pytest.mark.parametrize("devices", [["cpu", "cuda:0"], ["warp"], []])
def test_devices_of_two_kinds_are_refused(fake, devices):
    with pytest.raises(ValueError, match="all cpu or all cuda"):
        ray_engine(Shared(1), devices)


def test_a_model_that_cannot_be_pickled_is_one_line(fake):
    with pytest.raises(ValueError, match=r"\(has a lock inside\)$"):
        ray_engine(Shared(1, extra=Unpicklable()))


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install \"d3fast\[ray\]\"$"):
        ray_engine(Shared(1))


def test_the_package_is_imported_without_ray_and_without_fsspec_being_opened():
    code = "import sys, d3fast.results.engines; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
