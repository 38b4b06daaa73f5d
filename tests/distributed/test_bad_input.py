"""What cannot be done is refused on every rank, in one line; no rank waits for another."""

import time

import numpy as np
import pytest

from tests.distributed import edge_cases
from tests.distributed.ranks import TIMEOUT
from tests.distributed.test_trajectories import assert_equal_runs


def test_a_gradient_that_one_rank_lacks_is_refused_everywhere(worlds):
    line = "ValueError: tracked parameter 0 has a gradient on 1 of 2 ranks"
    assert worlds[2].refusals(edge_cases.gradient_missing_on_one_rank) == [line] * 2


def test_a_refusal_in_the_second_group_leaves_the_first_where_it_was(worlds):
    line = "ValueError: tracked parameter 2 has a gradient on 1 of 2 ranks"
    assert worlds[2].refusals(edge_cases.two_tracked_groups, True) == [line] * 2


def test_a_rank_without_any_gradient_is_refused_everywhere(worlds):
    line = "ValueError: tracked parameter 0 has a gradient on 1 of 2 ranks"
    assert worlds[2].refusals(edge_cases.no_gradient_at_all_on_one_rank) == [line] * 2


def test_an_option_out_of_range_on_one_rank_stops_all_before_anything_moves(worlds):
    first, second = worlds[2].refusals(edge_cases.option_out_of_range_on_one_rank)
    assert first == "ValueError: another rank refused this step; its own error says why"
    assert second.startswith("ValueError: lr must be finite and >= 0, got -1.0")


OTHER = "ValueError: another rank refused this step; its own error says why"
LATER = {
    edge_cases.remove_a_gradient: ["ValueError: tracked parameter 3 has a gradient on 1 of 2 ranks"]
    * 2,
    edge_cases.remove_all_gradients: [
        "ValueError: tracked parameter 0 has a gradient on 1 of 2 ranks"
    ]
    * 2,
    edge_cases.set_a_bad_option: [OTHER, "ValueError: lr must be finite and >= 0, got -1.0"],
    edge_cases.set_another_scope: ["ValueError: the options of parameter 0 differ between ranks"]
    * 2,
    edge_cases.untrack: ["ValueError: parameter 0 is tracked on 1 of 2 ranks"] * 2,
}


@pytest.mark.parametrize("change", LATER, ids=lambda change: change.__name__)
def test_a_later_step_that_differs_on_one_rank_raises_on_all_before_the_timeout(worlds, change):
    start = time.monotonic()
    assert worlds[2].refusals(edge_cases.later_step, change) == LATER[change]
    assert time.monotonic() - start < TIMEOUT / 2


def test_a_group_that_one_rank_alone_tracks_raises_on_all(worlds):
    line = "ValueError: parameter 0 is tracked on 1 of 2 ranks"
    assert worlds[2].refusals(edge_cases.tracked_by_one_rank) == [line] * 2


def test_ranks_go_on_together_after_an_error(worlds):
    (first, norm), (second, other_norm) = worlds[2].run(edge_cases.goes_on_after_an_error)
    assert first == second == 1
    assert norm == other_norm


def test_an_overflow_on_one_rank_holds_up_the_step_of_all(worlds):
    for before, after in worlds[2].run(edge_cases.overflow_on_one_rank):
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_grad_scaler_skips_the_step_of_all_ranks_together(worlds):
    for got in worlds[2].run(edge_cases.scaled_training, 2):
        assert got["moved"] == [True, True, False, True]
        assert got["scale"] == 512.0


def test_a_grad_scaler_changes_nothing_without_an_overflow(worlds):
    want = worlds[2].run(edge_cases.unscaled_training)[0]
    for got in worlds[2].run(edge_cases.scaled_training, None):
        assert_equal_runs([got], want, 1e-9)


def test_an_optimizer_built_before_fully_shard_is_refused(worlds):
    for line in worlds[2].refusals(edge_cases.sharded_after_construction):
        assert line.startswith("ValueError: no parameter of the optimizer has a gradient: build it")


def test_partial_placements_are_refused(worlds):
    for line in worlds[2].refusals(edge_cases.partial_placement):
        assert line.startswith("ValueError: params must be sharded or replicated, got a DTensor")


def test_the_kernels_can_be_asked_for_where_they_serve(worlds):
    worlds[2].run(edge_cases.fused_asked_for, 2)
    for line in worlds[2].refusals(edge_cases.fused_asked_for, 3):
        assert line.startswith("ValueError: backend='fused' cannot serve param group 0")


def test_only_the_slower_backend_is_announced(worlds):
    assert worlds[2].run(edge_cases.backend_warning, 2) == [[], []]
    for messages in worlds[2].run(edge_cases.backend_warning, 3):
        assert len(messages) == 1
        assert "slower backend='reference': distance_p=3 has no fused kernel" in messages[0]


def test_one_norm_over_dtensors_and_plain_tensors_is_refused(worlds):
    for line in worlds[2].refusals(edge_cases.mixed_group, "group"):
        assert line.startswith("ValueError: scope='group' needs all parameters of a group on one")


def test_a_plain_tensor_beside_dtensors_has_its_own_norm(worlds):
    for sharded, plain in worlds[2].run(edge_cases.mixed_group, "tensor"):
        assert np.linalg.norm(sharded) == pytest.approx(4.0)
        assert np.linalg.norm(plain) == pytest.approx(8**0.5)


def test_random_numbers_that_differ_between_ranks_are_refused(worlds):
    for line in worlds[2].refusals(edge_cases.warm_started, "shards", "random", False):
        assert line.startswith("ValueError: warm_start draws other numbers on each rank")


def test_a_state_of_another_mesh_is_refused(worlds):
    for line in worlds[4].refusals(edge_cases.state_of_another_mesh):
        assert "torch.distributed.checkpoint loads a state at another world size" in line
