"""Ranks that a GPU's kernels step: no host waits, and errors come one step late, on all ranks."""

import math

import pytest
import torch

from tests.csrc.cuda.on_host import FLAGS, SOURCES
from tests.distributed import edge_cases, on_device, ranks
from tests.distributed.test_trajectories import FULL, assert_equal_runs, error


@pytest.fixture(scope="module")
def host_library(shared_library):
    return shared_library(*SOURCES, flags=FLAGS)._name


@pytest.fixture
def run(worlds, host_library):
    """Calls a function on all ranks."""

    def call(function, *args, world=2, most=on_device.SMALL):
        return worlds[world].run(on_device.run, host_library, most, function, *args)

    return call


STEPS = 6
ADAMW = {"optimizer": "adamw", "lr": 0.02, "weight_decay": 0.1}


@pytest.mark.parametrize(
    ("options", "most"),
    [
        (FULL, on_device.SMALL),
        (FULL, math.inf),
        ({**FULL, "scope": "group", "constraint": "distance_ball", "radius": 0.5}, 100.0),
        ({**FULL, "distance_weight": 0.0}, 700.0),
        (ADAMW, 700.0),
    ],
    ids=str,
)
def test_shards_follow_the_whole_tensors(run, options, most):
    call = ("shards", torch.float32, options, STEPS)
    want = ranks.trajectory(None, *call)
    assert_equal_runs(run(ranks.trajectory, *call, most=most), want, 2e-6)


@pytest.mark.parametrize("layout", ["copies of shards", "shards of shards"])
def test_four_ranks_follow_in_two_dimensions(run, layout):
    call = (layout, torch.float32, FULL, STEPS)
    want = ranks.trajectory(None, *call)
    assert_equal_runs(run(ranks.trajectory, *call, world=4), want, 2e-6)


@pytest.mark.parametrize(
    "change",
    [edge_cases.edit_one_part, edge_cases.edit_one_part_unseen, edge_cases.refresh],
    ids=lambda change: change.__name__,
)
def test_what_changes_between_steps_is_seen(run, change):
    call = ("shards", torch.float32, {**FULL, "constraint": None}, STEPS, change)
    want = ranks.trajectory(None, *call)
    for got in run(ranks.trajectory, *call):
        assert error(got["params"], want["params"]) < 2e-6


def test_a_step_reads_the_counts_of_the_last_one_and_nothing_else(run):
    for found in run(on_device.host_reads):
        messages = {count for count, _ in found[1:]}
        assert len(messages) == 1
        assert messages.pop() > 1
        assert [reads for _, reads in found[2:]] == [1, 1, 1]


ONE_STEP_LATE = "in the step before this one, "
CHANGES = {
    edge_cases.remove_a_gradient: "tracked parameter 3 has a gradient on 1 of 2 ranks",
    edge_cases.set_another_scope: "the options of parameter 0 differ between ranks",
    edge_cases.untrack: "parameter 0 is tracked on 1 of 2 ranks",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_step_that_differs_on_one_rank_raises_on_all_in_the_next(run, change):
    late = ONE_STEP_LATE + CHANGES[change]
    answers = run(on_device.errors_by_step, change, on_device.set_the_old_options)
    assert answers == [[None, None, None, late, None, None]] * 2


def test_norms_that_one_rank_alone_measures_raise_on_all_in_the_next_step(run):
    for errors in run(on_device.errors_by_step, edge_cases.refresh):
        assert [e is None for e in errors] == [True, True, True, False, True, True]
        assert errors[3].startswith(ONE_STEP_LATE + "some ranks have to measure the norms anew")


def test_an_error_of_one_rank_stops_all_in_the_next_step(run):
    change = edge_cases.set_a_bad_option
    first, second = run(on_device.errors_by_step, change, on_device.set_the_old_options)
    late = "a rank refused the step before this one; its own error says why"
    assert first == [None, None, None, late, None, None]
    assert second[:2] == [None, None]
    assert second[2].startswith("lr must be finite and >= 0, got -1.0")
    assert second[3:] == [late, None, None]


@pytest.mark.parametrize(("overflow_at", "options"), [(0, {}), (2, {}), (2, {"dampening": 0.4})])
def test_an_overflow_on_one_rank_skips_the_step_of_all(run, overflow_at, options):
    want = run(on_device.skipping, overflow_at, options)
    got = run(on_device.scaled, overflow_at, options)
    assert all(answer.pop("reads") for answer in got)
    for a, b in zip(got, want, strict=True):
        assert_equal_runs([a], b, 1e-6)
