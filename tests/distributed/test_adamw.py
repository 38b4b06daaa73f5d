"""Sharded steps of AdamW follow those of a single process on whole tensors."""

import pytest
import torch

from tests.distributed import ranks
from tests.distributed.test_trajectories import assert_equal_runs

ADAMW = {"optimizer": "adamw", "lr": 0.02, "weight_decay": 0.1, "betas": (0.8, 0.9)}


def edit(params, opt):
    params[0].data.mul_(3.0)  # no rank can see it


@pytest.mark.parametrize("layout", ["shards", "copies"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"decoupled_push": True, "scope": "group"},
        {"distance_p": 1.0, "constraint": None},
        {"distance_p": 1.5, "scope": "group"},
        {"backend": "reference", "constraint": "distance_ball", "radius": 0.9},
        {"distance_weight": 0.0, "constraint": None},
    ],
    ids=str,
)
def test_shards_follow_the_whole_tensors(worlds, layout, options):
    call = (layout, torch.float64, {**ADAMW, **options})
    want = ranks.trajectory(None, *call)
    assert_equal_runs(worlds[2].run(ranks.trajectory, *call), want, 1e-12)


@pytest.mark.parametrize("options", [{}, {"decoupled_push": True}], ids=str)
def test_an_edit_that_no_rank_sees_is_corrected_on_all(worlds, options):
    call = ("shards", torch.float64, {**ADAMW, **options}, 8, edit)
    want = ranks.trajectory(None, *call)
    assert_equal_runs(worlds[2].run(ranks.trajectory, *call), want, 1e-10)


@pytest.mark.parametrize("kind", ["fsdp", "tensor parallel"])
def test_a_model_in_parallel_follows_one_process(worlds, kind):
    call = (kind, {**ADAMW, "eps": 1e-4})
    want = ranks.training(None, *call)
    assert_equal_runs(worlds[2].run(ranks.training, *call), want, 1e-9)
