"""Sharded steps follow those of a single process on whole tensors."""

import numpy as np
import pytest
import torch

from tests.distributed import edge_cases, ranks

CONSTRAINTS = {
    "norm_sphere": {},
    "norm_ball": {"radius": 0.9},
    "distance_ball": {"radius": 0.5},
    "distance_floor": {"radius": 4.0},
    "distance_shell": {"radius": (1.0, 1.5)},
    None: {},
}
FULL = {"momentum": 0.9, "weight_decay": 0.01}


def error(got, want):
    got, want = (np.concatenate([t.ravel() for t in ts]).astype(float) for ts in (got, want))
    return np.linalg.norm(got - want) / np.linalg.norm(want)


def assert_equal_runs(answers, want, tolerance):
    for got in answers:
        assert error(got["params"], want["params"]) < tolerance
        assert got["distances"].keys() == want["distances"].keys()
        assert list(got["distances"].values()) == pytest.approx(
            list(want["distances"].values()), rel=tolerance, abs=tolerance
        )
        assert got["total"] == pytest.approx(want["total"], rel=tolerance)


def test_every_rank_tracks_the_same_tensors_of_a_bare_list(worlds):
    assert edge_cases.tracked_without_asking(None) == (1, 3)
    assert worlds[2].run(edge_cases.tracked_without_asking) == [(1, 3)] * 2


@pytest.mark.parametrize("kind", ["fsdp", "tensor parallel"])
def test_a_model_of_which_only_matrices_are_tracked_follows_one_process(worlds, kind):
    call = (kind, {"track": None, "scope": "group"})
    want = ranks.training(None, *call)
    assert sorted(want["distances"]) == ["0.weight", "2.weight"]
    assert_equal_runs(worlds[2].run(ranks.training, *call), want, 1e-10)


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 6.0])
@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_shards_follow_the_whole_tensors(worlds, constraint, p, scope):
    options = {"constraint": constraint, **CONSTRAINTS[constraint], "distance_p": p, "scope": scope}
    call = ("shards", torch.float64, {**FULL, **options})
    want = ranks.trajectory(None, *call)
    assert_equal_runs(worlds[2].run(ranks.trajectory, *call), want, 1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.0},
        {"nesterov": True},
        {"dampening": 0.4},
        {"maximize": True},
        {"radius_unit": "absolute", "radius": 7.0},
        {"distance_weight": 0.0},
        {"distance_weight": 0.0, "constraint": None, "dampening": 0.4},
        {"lr": torch.tensor(0.05, dtype=torch.float64)},
        {"reference_dtype": torch.float32},
        {"backend": "reference"},
        {"momentum": 0.0, "lr": 0.6, "weight_decay": 1.0},
        {"nesterov": True, "lr": 0.6, "weight_decay": 1.0, "scope": "group"},
    ],
    ids=str,
)
def test_every_option_means_what_it_means_in_one_process(worlds, options):
    call = ("shards", torch.float64, {**FULL, **options})
    want = ranks.trajectory(None, *call)
    assert_equal_runs(worlds[2].run(ranks.trajectory, *call), want, 1e-12)


@pytest.mark.parametrize("constraint", ["norm_sphere", "distance_shell"])
def test_float32_follows_to_1e_6(worlds, constraint):
    options = {"constraint": constraint, **CONSTRAINTS[constraint], "scope": "group"}
    call = ("shards", torch.float32, {**FULL, **options})
    want = ranks.trajectory(None, *call)
    assert_equal_runs(worlds[2].run(ranks.trajectory, *call), want, 1e-6)


def test_all_groups_share_one_all_reduce_per_step(worlds):
    want = edge_cases.two_tracked_groups(None)
    answers = worlds[2].run(edge_cases.two_tracked_groups)
    assert_equal_runs(answers, want, 1e-12)
    # The first step also compares what the ranks are to step, and measures the norms.
    assert [a["calls"] for a in answers] == [22, 22]


@pytest.mark.parametrize(
    ("kind", "world", "dimensions"), [("fsdp", 2, 1), ("tensor parallel", 2, 1), ("both", 4, 2)]
)
def test_a_step_of_a_training_takes_one_all_reduce_per_dimension(worlds, kind, world, dimensions):
    for counts in worlds[world].run(edge_cases.all_reduces_per_step, kind):
        assert counts == [3 * dimensions, dimensions, dimensions, dimensions]


CHANGES = [
    edge_cases.edit_in_place,
    edge_cases.edit_through_data,
    edge_cases.edit_one_part,
    edge_cases.edit_one_part_unseen,
    edge_cases.refresh,
    edge_cases.refresh_on_one_rank,
    edge_cases.halve_momenta,
    edge_cases.replace_a_momentum,
    edge_cases.project_inside,
]


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_changes_between_steps_is_seen(worlds, change, scope):
    call = ("shards", torch.float64, {**FULL, "scope": scope}, 8, change)
    want = ranks.trajectory(None, *call)
    assert_equal_runs(worlds[2].run(ranks.trajectory, *call), want, 1e-10)


def test_bfloat16_follows_to_its_rounding(worlds):
    call = ("shards", torch.bfloat16, FULL)
    want = ranks.trajectory(None, *call)
    for got in worlds[2].run(ranks.trajectory, *call):
        assert error(got["params"], want["params"]) < 1e-4


@pytest.mark.parametrize("layout", ["shards", "copies", "copies of shards", "shards of shards"])
def test_four_ranks_follow_in_every_layout(worlds, layout):
    call = (layout, torch.float64, {**FULL, "scope": "group"})
    want = ranks.trajectory(None, *call)
    assert_equal_runs(worlds[4].run(ranks.trajectory, *call), want, 1e-12)


def test_a_rank_with_an_empty_part_takes_part(worlds):
    answers = worlds[4].run(ranks.trajectory, "shards", torch.float64, FULL)
    assert 0 in [a["smallest part"] for a in answers]


@pytest.mark.parametrize(
    ("kind", "world"), [("fsdp", 2), ("fsdp", 4), ("tensor parallel", 2), ("both", 4)]
)
@pytest.mark.parametrize("options", [{}, {"track": "head", "scope": "group"}], ids=str)
def test_a_trained_model_follows_the_single_process(worlds, kind, world, options):
    want = ranks.training(None, kind, options)
    answers = worlds[world].run(ranks.training, kind, options)
    assert_equal_runs(answers, want, 1e-9)


@pytest.mark.parametrize("options", [{}, {"track": "head"}], ids=str)
def test_every_ddp_rank_has_the_same_bits(worlds, options):
    first, second = worlds[2].run(ranks.local_bits, options)
    assert first == second


@pytest.mark.parametrize("mode", ["near", "middle", "far", "noise", "random"])
def test_a_warm_start_gives_the_same_whole_tensor_however_it_is_sharded(worlds, mode):
    want = edge_cases.warm_started(None, "shards", mode)
    for world, layout in ((2, "shards"), (4, "copies of shards")):
        for got in worlds[world].run(edge_cases.warm_started, layout, mode):
            for a, b in zip(got["params"], want["params"], strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-14)
