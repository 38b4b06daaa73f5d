"""The plain step of shards for AdamW, whose second moment needs the distance before the step."""

import pytest
import torch

from d3fast import D3FusedAdamW
from d3fast.optim.backends.shard_rule import RuleShard


def sums_of(shard):
    return torch.empty(len(shard.rows), shard.columns, dtype=torch.float64)


def take_step(group, state):
    """What ``sharded`` does, with this rank as the only one."""
    shard = RuleShard(group, state)
    assert not shard.ready(group, state)
    sums = sums_of(shard)
    shard.measure(sums)
    shard.prepare(state, sums)
    shard.update(None, sums)
    assert not shard.correct(sums, sums)
    shard.project(group, state, sums)


@pytest.mark.parametrize("decoupled_push", [False, True])
@pytest.mark.parametrize("constraint", [None, "norm_sphere", "distance_ball"])
@pytest.mark.parametrize("scope", ["tensor", "group"])
@torch.no_grad()
def test_a_step_follows_the_reference_backend_for_any_p(
    constraint, scope, decoupled_push, far_apart, set_gradients, relative_error
):
    options = {"distance_p": 3.0, "constraint": constraint, "radius": 0.9, "scope": scope}
    options |= {"optimizer": D3FusedAdamW, "decoupled_push": decoupled_push}
    results = []
    for is_sharded in (False, True):
        params, opt = far_apart(torch.float64, backend="reference", **options)
        for t in range(3):
            set_gradients(params, t)
            if is_sharded:
                take_step(opt.param_groups[0], opt.state)
            else:
                opt.step()
        assert {float(opt.state[p]["step"]) for p in params} == {3.0}
        results.append(params)
    assert relative_error(*results) < 1e-13


@torch.no_grad()
def test_no_weight_moves_before_the_sums_of_all_ranks_are_there(far_apart, set_gradients):
    params, opt = far_apart(torch.float64, backend="reference", optimizer=D3FusedAdamW)
    set_gradients(params, 0)
    before = [p.detach().clone() for p in params]
    shard = RuleShard(opt.param_groups[0], opt.state)
    sums = sums_of(shard)
    shard.measure(sums)
    shard.prepare(opt.state, sums)
    shard.update(None, sums)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
