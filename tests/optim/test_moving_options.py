"""Options that move between steps: by a scheduler of torch, or written into the group."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from d3fast import D3FusedSGD


def lone(backend, start=(3.0, 4.0), **options):
    p = nn.Parameter(torch.tensor(start))
    return p, D3FusedSGD(
        [p], track="all", backend=backend, **{"lr": 0.1, "constraint": None, **options}
    )


def step(p, opt, grad=0.0):
    p.grad = torch.full_like(p, grad)
    opt.step()


def test_an_lr_scheduler_sets_the_lr_of_each_step(backend):
    p, opt = lone(backend, distance_weight=0.0)
    scheduler = lr_scheduler.MultiStepLR(opt, milestones=[1, 2], gamma=0.5)
    travelled = []
    for _ in range(3):
        before = p.detach().clone()
        step(p, opt, 1.0)
        scheduler.step()
        travelled.append(float((before - p.detach())[0]))
    assert travelled == pytest.approx([0.1, 0.05, 0.025], rel=1e-5)


def test_one_cycle_moves_lr_and_momentum_as_for_torch_sgd(backend, descend, relative_error):
    results = []
    for ours in (True, False):
        p, opt = lone(backend, distance_weight=0.0, momentum=0.9)
        if not ours:
            opt = torch.optim.SGD([p], lr=0.1, momentum=0.9)
        scheduler = lr_scheduler.OneCycleLR(opt, max_lr=0.3, total_steps=20)
        for t in range(15):
            descend(opt, 1, start=t)
            scheduler.step()
        results.append([p, torch.tensor(opt.param_groups[0]["momentum"])])
    assert relative_error(*results) <= 1e-6


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("start", [(3.0, 4.0), 3.0])
def test_lr_may_be_a_tensor_that_a_scheduler_fills(shape, start, backend, descend, relative_error):
    results = []
    for lr in (torch.full(shape, 0.1), 0.1):
        p, opt = lone(backend, start, lr=lr, momentum=0.9)
        scheduler = lr_scheduler.ExponentialLR(opt, 0.5)
        for t in range(3):
            descend(opt, 1, start=t)
            scheduler.step()
        assert p.shape == torch.tensor(start).shape
        results.append([p])
    assert relative_error(*results) <= 1e-6


@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("start", [(3.0, 4.0), 3.0])
def test_radius_may_be_a_tensor(shape, start, backend):
    radius = torch.full(shape, 2.0)
    p, opt = lone(backend, start, constraint="norm_sphere", radius=radius, radius_unit="absolute")
    step(p, opt)
    assert float(p.detach().norm()) == pytest.approx(2.0)
    radius.fill_(0.5)
    step(p, opt)
    assert float(p.detach().norm()) == pytest.approx(0.5)


def test_numbers_of_numpy_are_numbers(backend):
    p, opt = lone(backend, constraint="norm_sphere")
    opt.param_groups[0].update(lr=np.float32(0.1), radius=np.float32(2.0))
    step(p, opt)
    assert float(p.detach().norm()) == pytest.approx(10.0)


def test_a_radius_written_into_the_group_holds_from_the_next_step(backend):
    p, opt = lone(backend, constraint="distance_floor", radius=1.0, radius_unit="absolute")
    for radius in (1.0, 2.0, 5.0):
        opt.param_groups[0]["radius"] = radius
        step(p, opt, 0.1)
        assert float(opt.total_distance()) == pytest.approx(max(radius, 0), rel=1e-5)


def test_a_distance_weight_written_into_the_group_holds_from_the_next_step(backend):
    p, opt = lone(backend)
    opt.set_reference([torch.tensor([0.0, 4.0])])  # delta points along the first axis
    for weight in (1.0, 10.0):
        opt.param_groups[0]["distance_weight"] = weight
        before = float(p.detach()[0])
        step(p, opt)
        assert float(p.detach()[0]) - before == pytest.approx(0.1 * weight, rel=1e-5)


def test_a_group_tracked_later_needs_its_reference_given(backend):
    p, opt = lone(backend, distance_weight=0.0)
    step(p, opt, 1.0)
    opt.param_groups[0]["distance_weight"] = 1.0
    before = p.detach().clone()
    for call in (lambda: step(p, opt), opt.distances, opt.total_distance, opt.warm_start):
        with pytest.raises(ValueError, match=r"param group 0 is tracked .* set_reference"):
            call()
    assert torch.equal(p, before)
    opt.set_reference([torch.zeros(2)])
    step(p, opt)
    assert float(opt.total_distance()) == pytest.approx(float(p.detach().norm()))


def test_a_group_added_with_a_reference_can_be_tracked_later(backend):
    theta_0 = torch.tensor([0.0, 4.0])
    p, opt = lone(backend, distance_weight=0.0, reference=[theta_0])
    step(p, opt, 1.0)
    opt.param_groups[0]["distance_weight"] = 1.0
    step(p, opt)
    assert float(opt.total_distance()) == pytest.approx(float((p.detach() - theta_0).norm()))


def test_switching_tracking_off_and_on_follows_the_reference(far_apart, descend, relative_error):
    results = []
    for kind, dtype in (("fused", torch.float32), ("reference", torch.float64)):
        _, opt = far_apart(dtype, backend=kind, momentum=0.9, constraint=None)
        for t, weight in enumerate((1.0, 0.0, 0.0, 2.0, 0.0, 1.0)):
            opt.param_groups[0]["distance_weight"] = weight
            got = descend(opt, 1, start=t)
        results.append(got)
    assert relative_error(*results) <= 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"distance_p": [1.0, 2.0, 1.0, 2.0]},
        {"distance_p": [1.0, 1.5, 3.0, 2.0]},
        {"scope": ["tensor", "group", "tensor", "group"]},
        {"constraint": ["norm_sphere", None, "norm_ball", "norm_sphere"]},
        {"momentum": [0.0, 0.9, 0.0, 0.5]},
        {"backend": ["auto", "reference", "auto", "reference"]},
    ],
    ids=lambda c: next(iter(c)),
)
def test_any_option_may_change_between_steps(changes, far_apart, descend, relative_error):
    results = []
    for kind, dtype in (("auto", torch.float32), ("reference", torch.float64)):
        _, opt = far_apart(dtype, backend=kind)
        for t in range(8):
            for name, values in changes.items():
                if name != "backend" or kind == "auto":
                    opt.param_groups[0][name] = values[t % 4]
            got = descend(opt, 1, start=t)
        results.append(got)
    assert relative_error(*results) <= 1e-5


def test_the_backend_written_into_the_group_is_the_one_that_steps(descend, monkeypatch):
    _, opt = lone("fused")
    descend(opt, 1)
    opt.param_groups[0]["backend"] = "reference"
    calls = []
    monkeypatch.setattr(
        "d3fast.optim.backends.torch_backend.step_group", lambda *a, **k: calls.append(1)
    )
    descend(opt, 1)
    assert calls == [1]


NONSENSE = {
    "lr": [math.nan, -0.1, math.inf],
    "momentum": [-0.5, math.nan],
    "weight_decay": [math.nan, -1.0],
    "distance_weight": [math.nan, -1.0],
    "distance_p": [0.5, math.nan],
    "radius": [-1.0, math.nan, torch.tensor(-1.0), torch.tensor(math.nan)],
    "constraint": ["norm_cube", "distance_ball"],
    "scope": ["layer"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in NONSENSE.items() for value in values]
)
def test_nonsense_scheduled_into_a_group_raises_before_anything_moves(
    name, value, backend, set_gradients, same_bits
):
    g = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(4, generator=g)) for _ in range(2)]
    opt = D3FusedSGD(
        [{"params": [p]} for p in params], track="all", lr=0.1, momentum=0.9, backend=backend
    )
    set_gradients(params, 0)
    opt.step()
    opt.param_groups[1][name] = value
    kept = [*params, *(opt.state[p]["momentum_buffer"] for p in params)]
    before = [t.detach().clone() for t in kept]
    with pytest.raises(ValueError, match=name if name != "constraint" else "constraint|radius"):
        opt.step()
    assert same_bits(kept, before)
