"""Shards of a half type keep what rounding took off, as whole tensors do."""

import pytest
import torch

from tests.distributed import ranks
from tests.distributed.test_trajectories import error

# Steps below half of a spacing: rounded to nearest, none of them would move a weight.
SMALL = {"lr": 4e-4, "constraint": None}


@pytest.mark.parametrize("momentum", [{}, {"momentum": 0.5, "momentum_dtype": torch.float32}])
def test_small_steps_on_shards_follow_those_on_whole_tensors(worlds, momentum):
    call = ("shards", torch.float16, {**SMALL, **momentum})
    want = ranks.trajectory(None, *call)
    start = [t + 3 for t in ranks.draw(0, torch.float16)]
    assert error([t.numpy() for t in start], want["params"]) > 5e-4
    for got in worlds[2].run(ranks.trajectory, *call):
        assert error(got["params"], want["params"]) < 5e-5


def test_narrow_momentum_and_reference_on_shards_follow_those_on_whole_tensors(worlds):
    narrow = {"momentum_dtype": torch.bfloat16, "reference_dtype": torch.bfloat16}
    call = ("shards", torch.float32, {"momentum": 0.9, **narrow})
    want = ranks.trajectory(None, *call)
    for got in worlds[2].run(ranks.trajectory, *call):
        assert error(got["params"], want["params"]) < 1e-3
