"""The eager step of all groups: what is checked, kept and skipped."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD


def two_groups(backend, **options):
    """Two groups of one parameter each, with gradients, and their optimizer."""
    params = [nn.Parameter(torch.full((4,), 2.0 + i)) for i in range(2)]
    opt = D3FusedSGD(
        [{"params": [p]} for p in params], track="all", lr=0.1, backend=backend, **options
    )
    for p in params:
        p.grad = torch.arange(1.0, 5.0)
    return params, opt


def moved(params):
    return [not torch.equal(p, torch.full((4,), 2.0 + i)) for i, p in enumerate(params)]


def test_a_step_without_any_gradient_moves_nothing_and_is_silent(backend):
    params, opt = two_groups(backend)
    opt.zero_grad()
    opt.step()
    assert moved(params) == [False, False]


def test_a_group_without_gradients_is_passed_over(backend):
    params, opt = two_groups(backend)
    params[0].grad = None
    opt.step()
    assert moved(params) == [False, True]


@pytest.mark.parametrize("steps", [0, 2])
def test_all_groups_are_checked_before_any_moves(backend, steps):
    params, opt = two_groups(backend)
    for _ in range(steps):
        opt.step()
    before = [p.detach().clone() for p in params]
    opt.param_groups[1]["lr"] = -0.5
    with pytest.raises(ValueError, match=r"lr .*-0\.5"):
        opt.step()
    assert [torch.equal(p, q) for p, q in zip(params, before, strict=True)] == [True, True]


def test_a_group_that_became_tracked_needs_a_reference(backend):
    params, opt = two_groups(backend, distance_weight=0.0, constraint=None)
    opt.param_groups[1]["distance_weight"] = 1.0
    with pytest.raises(ValueError, match="param group 1 is tracked"):
        opt.step()
    assert moved(params) == [False, False]


@pytest.mark.parametrize("steps", [0, 1])
def test_an_overflow_skips_the_step_and_makes_no_state(backend, steps):
    params, opt = two_groups(backend, momentum=0.9)
    for _ in range(steps):
        opt.step()
    before = [p.detach().clone() for p in params]
    names = [set(opt.state[p]) for p in params]
    opt.found_inf = torch.ones(())
    opt.step()
    assert [torch.equal(p, q) for p, q in zip(params, before, strict=True)] == [True, True]
    assert [set(opt.state[p]) for p in params] == names
