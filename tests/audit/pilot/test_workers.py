"""Workers: results in order, errors in one line, nothing left behind."""

import multiprocessing
import os
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from d3fast.audit.pilot.workers import Crew, torch_threads


@dataclass
class Tool:
    """Adds a number; ``folder`` is where a task notes that it ran."""

    number: int
    folder: Path | None = None
    extra: object = None

    def to(self, device):
        return self


@pytest.fixture
def nobody_left():
    """Checks afterwards that no process is left besides those that were there before."""
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


def add(tool, device, item):
    time.sleep(0.01 * item)  # the first items take longest
    return tool.number + item


def note(tool, device, item):
    (tool.folder / f"{os.getpid()}").write_text(f"{torch.get_num_threads()}")
    time.sleep(0.3)
    return item


def fail(tool, device, item):
    if item == 1:
        raise ValueError("item 1 cannot be used")
    return item


def break_down(tool, device, item):
    raise KeyError("a defect")


def die(tool, device, item):
    os._exit(9)


class Unpicklable(nn.Module):
    def __reduce__(self):
        raise TypeError("has a lock inside")


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"]])
def test_results_come_in_the_order_of_the_items(devices):
    with Crew(Tool(10), devices) as crew:
        assert crew.run(add, [5, 1, 0, 3]) == [15, 11, 10, 13]
        assert crew.run(add, [2]) == [12]
        assert crew.run(add, []) == []


def test_one_device_needs_no_process_and_several_are_processes(nobody_left, tmp_path):
    with Crew(Tool(0, tmp_path), ["cpu"]) as crew:
        crew.run(note, [0])
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]
    with Crew(Tool(0, tmp_path), ["cpu", "cpu"], threads=1) as crew:
        crew.run(note, [0, 1])
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 3
    assert {path.read_text() for path in tmp_path.iterdir()} == {"1"}


def test_every_item_is_reported():
    seen = []
    with Crew(Tool(0), ["cpu"]) as crew:
        crew.run(add, [0, 0, 0], lambda: seen.append(1))
    assert len(seen) == 3


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"]])
def test_what_a_task_refuses_reaches_the_caller(nobody_left, devices):
    with (
        pytest.raises(ValueError, match=r"^item 1 cannot be used$"),
        Crew(Tool(0), devices) as crew,
    ):
        crew.run(fail, [0, 1, 2])


def test_a_defect_in_a_worker_keeps_its_traceback():
    with Crew(Tool(0), ["cpu", "cpu"]) as crew, pytest.raises(RuntimeError, match="break_down"):
        crew.run(break_down, [0])


def test_a_worker_that_is_gone_is_one_line():
    with Crew(Tool(0), ["cpu", "cpu"]) as crew, pytest.raises(OSError, match="exit code 9"):
        crew.run(die, [0])


def test_a_model_that_cannot_be_pickled_is_one_line_that_says_what_to_do():
    with pytest.raises(ValueError, match="has a lock inside") as caught:
        Crew(Tool(0, extra=Unpicklable()), ["cpu", "cpu"])
    assert str(caught.value).endswith("; use one device")
    assert "\n" not in str(caught.value)


def test_it_may_be_used_on_one_device():
    with Crew(Tool(1, extra=Unpicklable()), ["cpu"]) as crew:
        assert crew.run(add, [1]) == [2]


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        ([], "devices must name"),
        (["warp"], "device must be"),
        (["cpu", "cuda:99"], "not available"),
    ],
)
def test_devices_that_are_not_there_are_refused(devices, message):
    with pytest.raises(ValueError, match=message):
        Crew(Tool(0), devices)


def test_the_number_of_threads_is_put_back():
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
