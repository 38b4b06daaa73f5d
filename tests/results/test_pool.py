"""The local engines: devices, errors in one line, no process left behind."""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from d3fast.results.engine import run_jobs
from d3fast.results.pool import local_engine
from tests.processes import alive_in_group, interrupt, needs_proc, python, wait_until


@dataclass
class Shared:
    """A number, and what may be hard to send."""

    number: int
    extra: object = None
    device: torch.device | None = None

    def to(self, device):
        return Shared(self.number, self.extra, device)


@dataclass(frozen=True)
class Call:
    """Calls a function of this module."""

    function: Any
    item: Any = 0
    kind: ClassVar[str] = "Call"

    @property
    def name(self):
        return self.function.__name__

    def run(self, shared, progress):
        return self.function(shared, self.item)


def add(shared, item):
    time.sleep(0.01 * item)  # the first items take longest
    return shared.number + item


def note(shared, folder):
    (Path(folder) / f"{os.getpid()}").write_text(f"{torch.get_num_threads()} {shared.device}")
    time.sleep(0.3)


def fail(shared, item):
    raise FileNotFoundError(2, "no such data", f"item {item}")


def break_down(shared, item):
    raise KeyError("a defect")


def die(shared, item):
    os._exit(9)


def tensors(shared, item):
    return torch.full((item,), float(shared.number))


class Unpicklable(nn.Module):
    def __reduce__(self):
        raise TypeError("has a lock inside\nand more")


def unpickle():
    raise TypeError("lives elsewhere")


class CannotBeRestored(nn.Module):
    def __reduce__(self):
        return unpickle, ()


def run(engine, function, *items):
    return run_jobs([Call(function, item) for item in items], engine, progress=False)


def results(function, items, devices=("cpu", "cpu"), shared=None, **options):
    with local_engine(shared or Shared(10), devices, **options) as engine:
        return run(engine, function, *items)


@pytest.fixture(scope="module")
def processes():
    """An engine of two processes."""
    with local_engine(Shared(10), ["cpu", "cpu"]) as made:
        yield made


@pytest.fixture(params=["inline", "processes"])
def engine(request):
    """An engine of one worker, or two."""
    if request.param == "processes":
        return request.getfixturevalue("processes")
    return local_engine(Shared(10), ["cpu"])


@pytest.fixture(scope="module", autouse=True)
def no_process_left():
    """Fail if an engine leaves a process behind."""
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


def test_results_come_in_the_order_of_the_jobs_more_than_once(engine):
    assert run(engine, add, 5, 1, 0, 3) == [15, 11, 10, 13]
    assert run(engine, add, 2) == [12]


def test_tensors_are_returned(engine):
    (found,) = run(engine, tensors, 70_000)
    assert torch.equal(found, torch.full((70_000,), 10.0))


def test_one_device_needs_no_process(tmp_path):
    results(note, [tmp_path], ["cpu"])
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]


def test_several_devices_are_processes_with_their_device_and_threads(tmp_path, processes):
    run(processes, note, tmp_path, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names - {str(os.getpid())}) == 2
    assert {path.read_text() for path in tmp_path.iterdir()} == {"1 cpu"}


def test_large_shared_objects_reach_only_the_workers_that_are_needed():
    shared = Shared(1, extra=torch.zeros(300_000))
    assert results(add, [1], ["cpu"] * 3, shared) == [2]


def test_an_input_error_of_a_job_reaches_the_caller_in_one_line(engine):
    with pytest.raises((ValueError, OSError), match=r"^\[Errno 2\] no such data: 'item 7'$"):
        run(engine, fail, 7)


def test_a_defect_in_a_worker_keeps_its_traceback(processes):
    with pytest.raises(RuntimeError, match="break_down"):
        run(processes, break_down, 0)


def test_a_worker_that_is_gone_is_one_line_with_its_exit_code():
    with pytest.raises(OSError, match="exit code 9"):
        results(die, [0])


def test_a_model_that_cannot_be_pickled_is_one_line_and_works_on_one_device():
    shared = Shared(1, extra=Unpicklable())
    with pytest.raises(ValueError, match=r"\(has a lock inside\); use one device$"):
        local_engine(shared, ["cpu", "cpu"])
    assert results(add, [1], ["cpu"], shared) == [2]


def test_a_model_that_cannot_be_restored_is_one_line():
    with pytest.raises(ValueError, match=r"\(lives elsewhere\); use one device$"):
        results(add, [1], shared=Shared(1, extra=CannotBeRestored()))


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([], "devices must name"),
        (["warp"], "device must be"),
        (["cpu", "cuda:99"], "not available"),
    ],
)
def test_devices_that_do_not_exist_are_refused(devices, message):
    with pytest.raises(ValueError, match=message):
        local_engine(Shared(0), devices)


SLEEPS = """
import os, time
from dataclasses import dataclass
from pathlib import Path
from d3fast.results.engine import run_jobs
from d3fast.results.jobs import RunDir
from d3fast.results.pool import local_engine

@dataclass(frozen=True)
class Sleeps:
    name: str
    kind = "Sleeps"

    def run(self, run_dir, progress):
        (run_dir.folder / f"{self.name}.pid").write_text(str(os.getpid()))
        time.sleep(60)

if __name__ == "__main__":
    with local_engine(RunDir(Path.cwd()), ["cpu", "cpu"]) as engine:
        run_jobs([Sleeps("a"), Sleeps("b")], engine, progress=False)
"""


@pytest.fixture
def sleeping(tmp_path):
    """A process whose two workers sleep."""
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    with python("sleeps.py", cwd=tmp_path) as process:
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        yield process


@needs_proc
@pytest.mark.parametrize(
    "ending", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_workers_end_with_their_parent(sleeping, ending):
    sleeping.send_signal(ending)
    sleeping.wait()
    wait_until(lambda: not alive_in_group(sleeping.pid))


@needs_proc
def test_ctrl_c_ends_the_workers_at_once_and_only_the_parent_hears_it(sleeping):
    _, stderr = interrupt(sleeping)
    assert stderr.count("Traceback") == 1
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    wait_until(lambda: not alive_in_group(sleeping.pid))
