"""The plain step of shards takes norms that have no kernel."""

import pytest
import torch

from d3fast.optim.backends import shard_torch
from d3fast.optim.backends.shard_torch import TorchShard, power_sum, step_untracked


@pytest.mark.parametrize("constraint", [None, "norm_sphere", "distance_ball"])
@pytest.mark.parametrize("scope", ["tensor", "group"])
@torch.no_grad()
def test_a_step_follows_the_reference_backend_for_any_p(
    constraint, scope, far_apart, set_gradients, relative_error
):
    options = {"distance_p": 3.0, "momentum": 0.9, "constraint": constraint, "radius": 0.9}
    results = []
    for is_sharded in (False, True):
        params, opt = far_apart(torch.float64, backend="reference", scope=scope, **options)
        for t in range(3):
            set_gradients(params, t)
            if not is_sharded:
                opt.step()
                continue
            group = opt.param_groups[0]
            shard = TorchShard(group, opt.state)
            sums = torch.empty(len(shard.rows), shard.columns, dtype=torch.float64)
            shard.update(None, sums)
            shard.project(group, opt.state, sums)
        results.append(params)
    assert relative_error(*results) < 1e-13


@torch.no_grad()
def test_nothing_moves_before_the_sums_of_all_ranks_are_there(far_apart, set_gradients):
    params, opt = far_apart(torch.float64, backend="reference", momentum=0.9)
    set_gradients(params, 0)
    before = [p.detach().clone() for p in params]
    shard = TorchShard(opt.param_groups[0], opt.state)
    shard.update(None, torch.empty(len(params), shard.columns, dtype=torch.float64))
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


@torch.no_grad()
def test_an_untracked_step_is_that_of_torch(far_apart, set_gradients, relative_error):
    params, opt = far_apart(
        torch.float64, distance_weight=0.0, constraint=None, momentum=0.9, backend="reference"
    )
    twins = [p.detach().clone() for p in params]
    sgd = torch.optim.SGD(twins, lr=0.05, momentum=0.9)
    for t in range(3):
        set_gradients(params, t)
        set_gradients(twins, t)
        step_untracked(opt.param_groups[0], opt.state, None)
        sgd.step()
    assert relative_error(params, twins) < 1e-14


@pytest.mark.parametrize("p", [1.0, 2.0, 3.5])
def test_power_sums_are_powers_of_norms(p):
    delta = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(
        power_sum(delta, p), torch.linalg.vector_norm(delta.double(), p) ** p
    )


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
@torch.no_grad()
def test_distances_are_those_of_torch(p, far_apart):
    params, opt = far_apart(torch.float64, backend="reference")
    for got, theta in zip(shard_torch.distances(params, opt.state, p), params, strict=True):
        delta = theta.detach() - opt.state[theta]["reference"]
        torch.testing.assert_close(got, torch.linalg.vector_norm(delta, p))
