"""Two passes over the same tasks: the second is divided among threads as the first was."""

import ctypes
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def two_passes(shared_library):
    flags = ("-O1", "-pthread", "-ldl")
    library = shared_library(
        Path(__file__).parent / "parallel.cpp", "cpu/parallel.cpp", flags=flags
    )

    def run(count, threads, micros=0, slow=1, first=0):
        times, same = (ctypes.c_int * (2 * count))(), (ctypes.c_int * count)()
        library.two_passes(
            ctypes.c_int64(first), ctypes.c_int64(count), threads, micros, slow, times, same
        )
        return list(times), list(same)

    return run


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 100])
def test_every_task_runs_once_in_either_pass(two_passes, count, threads):
    for first in (0, 7):
        times, _ = two_passes(count, threads, first=first)
        assert times == [1] * 2 * count


def test_a_thread_begins_with_the_tasks_it_had(two_passes):
    times, same = two_passes(16, 2, micros=20000)
    assert times == [1] * 32
    assert sum(same) >= 12  # the last ones may go to the thread that is done first


def test_what_a_slow_thread_leaves_is_taken_by_the_others(two_passes):
    times, same = two_passes(16, 2, micros=2000, slow=20)
    assert times == [1] * 32
    assert 0 < sum(same) < 16
