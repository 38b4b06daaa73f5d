"""The step of shards on plain tensors, whose one part is the whole, without any other rank.

``tests/distributed`` runs it on several ranks.
"""

import pytest
import torch

from d3fast.optim.backends import sharded
from d3fast.optim.backends.shard_plan import ShardPlan

VARIANTS = {
    "defaults": {},
    "heavy_ball": {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    "nesterov_ball": {"momentum": 0.8, "nesterov": True, "constraint": "norm_ball", "radius": 0.9},
    "joint_shell": {"scope": "group", "constraint": "distance_shell", "radius": (0.5, 0.9)},
    "floor_p1": {"distance_p": 1.0, "constraint": "distance_floor", "radius": 2.0},
    "not_invertible": {"lr": 0.6, "weight_decay": 1.0, "constraint": None},
    "untracked": {"distance_weight": 0.0, "constraint": None, "momentum": 0.9},
}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.fixture(params=["fused", "reference"])
def kind(request):
    """The kernels or plain PyTorch."""
    return request.param


@pytest.fixture
def take_step():
    """Take steps of an optimizer as if its parameters were shards."""
    stepper = sharded.ShardedStepper([])

    def step(opt, grad_scale=None):
        groups = opt.param_groups
        parts = [(i, i, group) for i, group in enumerate(groups)]
        stepper.step(groups, parts, opt.state, grad_scale)

    return step


@pytest.mark.parametrize("name", VARIANTS)
def test_steps_follow_the_reference_backend(
    name, kind, take_step, far_apart, set_gradients, relative_error
):
    results = []
    for is_sharded in (False, True):
        backend = kind if is_sharded else "reference"
        params, opt = far_apart(torch.float64, **{"backend": backend, **VARIANTS[name]})
        for t in range(4):
            set_gradients(params, t)
            if is_sharded:
                take_step(opt)
            else:
                opt.step()
        results.append([p.detach() for p in params])
    assert relative_error(*results) < 1e-12


def test_gradients_are_unscaled_in_place(kind, take_step, far_apart, set_gradients):
    params, opt = far_apart(torch.float64, backend=kind)
    set_gradients(params, 0)
    before = [p.grad.clone() for p in params]
    take_step(opt, torch.tensor(4.0))
    for p, grad in zip(params, before, strict=True):
        assert torch.equal(p.grad, grad / 4)


@pytest.mark.parametrize("scope", ["tensor", "group"])
def test_parameters_without_a_gradient_do_not_move(
    scope, kind, take_step, far_apart, set_gradients
):
    params, opt = far_apart(torch.float64, backend=kind, scope=scope)
    for missing in (0, 4):
        set_gradients(params, 0)
        params[missing].grad = None
        before = params[missing].detach().clone()
        take_step(opt)
        assert torch.equal(params[missing], before)


def test_a_group_without_any_gradient_takes_no_part(kind, take_step, far_apart, set_gradients):
    params, opt = far_apart(torch.float64, backend=kind)
    take_step(opt)
    set_gradients(params, 0)
    take_step(opt)
    opt.zero_grad()
    before = [p.detach().clone() for p in params]
    take_step(opt)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_a_bad_option_raises_and_later_steps_go_on(kind, take_step, far_apart, set_gradients):
    params, opt = far_apart(torch.float64, backend=kind)
    set_gradients(params, 0)
    take_step(opt)
    before = [p.detach().clone() for p in params]
    opt.param_groups[0]["lr"] = -1.0
    with pytest.raises(ValueError, match=r"lr must be finite and >= 0, got -1\.0"):
        take_step(opt)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))
    opt.param_groups[0]["lr"] = 0.1
    take_step(opt)
    assert not torch.equal(params[0], before[0])


def test_what_a_graph_addresses_outlives_the_plans(monkeypatch, far_apart, set_gradients):
    captured = []
    stepper = sharded.ShardedStepper(captured)
    params, opt = far_apart(torch.float64, backend="fused")
    set_gradients(params, 0)
    for kept in (0, 1):
        stepper.step(opt.param_groups, [(0, 0, opt.param_groups[0])], opt.state)
        monkeypatch.setattr(ShardPlan, "captured", bool(kept))
        stepper.drop_plans()
        assert len(captured) == kept
    ((message,),) = captured
    assert message.sums.numel() == 4 * len(params) + 2
