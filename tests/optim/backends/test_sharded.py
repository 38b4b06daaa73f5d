"""The sharded step on plain tensors, whose one part is the whole: it follows the reference step.

``tests/distributed`` runs it on several ranks.
"""

import pytest
import torch

from d3fast.optim.backends import sharded

VARIANTS = {
    "defaults": {},
    "heavy_ball": {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01},
    "nesterov_ball": {"momentum": 0.8, "nesterov": True, "constraint": "norm_ball", "radius": 0.9},
    "joint_shell": {"scope": "group", "constraint": "distance_shell", "radius": (0.5, 0.9)},
    "floor_p1": {"distance_p": 1.0, "constraint": "distance_floor", "radius": 2.0},
    "p3_uphill": {"distance_p": 3.0, "constraint": None, "maximize": True},
}


@pytest.fixture(autouse=True)
def no_grad():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("name", VARIANTS)
def test_steps_follow_the_reference_backend(name, far_apart, set_gradients, relative_error):
    results = []
    for is_sharded in (False, True):
        params, opt = far_apart(torch.float64, backend="reference", **VARIANTS[name])
        for t in range(4):
            set_gradients(params, t)
            if is_sharded:
                sharded.step_tracked(opt.param_groups, opt.state)
            else:
                opt.step()
        results.append([p.detach() for p in params])
    assert relative_error(*results) < 1e-13


def test_gradients_are_unscaled_in_place(far_apart, set_gradients):
    params, opt = far_apart(torch.float64, backend="reference")
    set_gradients(params, 0)
    before = [p.grad.clone() for p in params]
    sharded.step_tracked(opt.param_groups, opt.state, torch.tensor(4.0))
    for p, grad in zip(params, before, strict=True):
        assert torch.equal(p.grad, grad / 4)


def test_parameters_without_a_gradient_do_not_move(far_apart, set_gradients):
    params, opt = far_apart(torch.float64, backend="reference", scope="group")
    set_gradients(params, 0)
    params[0].grad = None
    before = params[0].detach().clone()
    sharded.step_tracked(opt.param_groups, opt.state)
    assert torch.equal(params[0], before)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_distances_are_those_of_torch(p, far_apart):
    params, opt = far_apart(torch.float64, backend="reference")
    for got, theta in zip(sharded.distances(params, opt.state, p), params, strict=True):
        delta = theta.detach() - opt.state[theta]["reference"]
        torch.testing.assert_close(got, torch.linalg.vector_norm(delta, p))


def test_plain_tensors_need_no_allreduce(far_apart):
    _, opt = far_apart()
    assert not sharded.needs_allreduce(opt.param_groups[0])
