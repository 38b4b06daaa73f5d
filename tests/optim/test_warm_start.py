"""Warm starts: the formula of each, and that a generator decides them alone."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD, param_groups
from d3fast.optim import WARM_STARTS


def warmed(mode, backend="fused", seed=0, shape=(200, 50), dtype=torch.float32, **options):
    g = torch.Generator().manual_seed(5)
    p = nn.Parameter((0.3 * torch.randn(shape, generator=g) + 0.1).to(dtype))
    opt = D3FusedSGD([p], track="all", backend=backend, **options)
    theta_0 = p.detach().clone()
    opt.warm_start(mode, generator=torch.Generator().manual_seed(seed))
    return p.detach(), theta_0


def test_near_middle_and_far_are_theta_0_zero_and_minus_theta_0(dtype):
    for mode, factor in (("near", 1), ("middle", 0), ("far", -1)):
        theta, theta_0 = warmed(mode, dtype=dtype)
        assert torch.equal(theta, factor * theta_0)


def test_noise_adds_a_normal_of_the_spread_of_theta_0():
    theta, theta_0 = warmed("noise")
    added = theta - theta_0
    assert added.std().item() == pytest.approx(theta_0.std().item(), rel=0.03)
    assert added.mean().item() == pytest.approx(0.0, abs=0.01)
    assert ((added.abs() > added.std()).float().mean().item()) == pytest.approx(0.317, abs=0.02)


def test_noise_keeps_the_precision_of_float64():
    theta, theta_0 = warmed("noise", shape=(50,), dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    drawn = torch.randn(50, generator=g, dtype=torch.float64)
    torch.testing.assert_close(
        theta, theta_0 + theta_0.std(correction=0) * drawn, rtol=1e-14, atol=1e-15
    )


def test_random_is_uniform_around_0_on_the_sphere_of_theta_0(dtype):
    theta, theta_0 = warmed("random", dtype=dtype)
    torch.testing.assert_close(theta.norm(), theta_0.norm())
    bound = theta.abs().max().item()
    assert theta.mean().item() == pytest.approx(0.0, abs=0.03 * bound)
    assert theta.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)  # of U(-b, b)


def test_random_is_the_default():
    p = nn.Parameter(torch.ones(4))
    opt = D3FusedSGD([p], track="all")
    opt.warm_start(generator=torch.Generator().manual_seed(0))
    first = p.detach().clone()
    opt.warm_start("random", generator=torch.Generator().manual_seed(0))
    assert torch.equal(p, first)


@pytest.mark.parametrize("mode", ["noise", "random"])
def test_the_generator_decides(mode, dtype):
    assert torch.equal(warmed(mode, dtype=dtype)[0], warmed(mode, dtype=dtype)[0])
    assert not torch.equal(warmed(mode, dtype=dtype)[0], warmed(mode, seed=1, dtype=dtype)[0])
    with torch.random.fork_rng():
        torch.manual_seed(99)  # the global generator has no part in it
        assert torch.equal(warmed(mode, dtype=dtype)[0], warmed(mode, dtype=dtype)[0])


def test_without_a_generator_the_global_seed_decides():
    p = nn.Parameter(torch.ones(4))
    opt = D3FusedSGD([p], track="all")
    results = []
    for _ in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            opt.warm_start("random")
        results.append(p.detach().clone())
    assert torch.equal(*results)


@pytest.mark.parametrize("mode", WARM_STARTS)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4)])
def test_every_shape_is_served_without_nan(mode, shape, dtype):
    theta, _ = warmed(mode, shape=shape, dtype=dtype)
    assert theta.shape == torch.Size(shape)
    assert torch.isfinite(theta).all()


@pytest.mark.parametrize("mode", WARM_STARTS)
def test_a_zero_reference_stays_zero(mode):
    p = nn.Parameter(torch.zeros(3))
    D3FusedSGD([p], track="all").warm_start(mode)
    assert p.tolist() == [0.0, 0.0, 0.0]


def test_half_types_are_drawn_and_rescaled_in_float32():
    theta, theta_0 = warmed("random", "reference", dtype=torch.bfloat16)
    assert theta.dtype == torch.bfloat16
    assert theta.float().norm().item() == pytest.approx(theta_0.float().norm().item(), rel=1e-3)


def test_only_tracked_weights_move():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    D3FusedSGD(param_groups(model)).warm_start("far")
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
    assert moved == ["1.weight"]


def test_the_start_is_taken_from_the_reference_not_from_the_weights():
    p = nn.Parameter(torch.ones(3))
    D3FusedSGD([p], track="all", reference=[torch.full((3,), 2.0)]).warm_start("far")
    assert p.tolist() == [-2.0, -2.0, -2.0]


def test_gradients_are_not_recorded_and_a_stale_backward_raises():
    p = nn.Parameter(torch.ones(3))
    stale = p.square().sum()
    D3FusedSGD([p], track="all").warm_start("far")
    assert p.grad_fn is None
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        stale.backward()
