"""What a step costs beside its bytes: launches, allocations, waiting."""

import pytest
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# torch warns that the profiler and the sync debug mode are what they are.
pytestmark = pytest.mark.filterwarnings("default")
SHAPES = [(300, 7)] * 70


def launches(step, steps):
    """Kernels, copies and fills that the device ran."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    names = [e.name for e in seen.events() if e.device_type == DeviceType.CUDA]
    return [name for name in names if not name.startswith("Optimizer.")]  # spans, no work


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize("constraint", ["norm_sphere", None])
def test_a_steady_step_is_one_launch(make, scope, constraint):
    _, opt = make(SHAPES, scope=scope, constraint=constraint)
    for _ in range(3):
        opt.step()
    names = launches(opt.step, 10)
    assert len(names) == 10, sorted(set(names))


def test_an_lr_and_a_radius_on_the_device_cost_no_launch(make, device):
    lr, radius = torch.tensor(0.01, device=device), torch.tensor(0.9, device=device)
    _, opt = make(SHAPES, capturable=True, lr=lr, radius=radius)
    for _ in range(3):
        opt.step()
    names = launches(opt.step, 10)
    assert len(names) == 10, sorted(set(names))


def test_a_steady_step_allocates_nothing(make):
    _, opt = make(SHAPES)
    for _ in range(3):
        opt.step()
    count = lambda: torch.cuda.memory_stats()["allocation.all.allocated"]  # noqa: E731
    before = count()
    for _ in range(10):
        opt.step()
    assert count() == before


@pytest.fixture
def no_waiting():
    """Raises where the host would wait for the device."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("moving", [False, True])
def test_a_steady_step_waits_for_nothing(make, request, device, scaled, moving):
    params, opt = make()
    if scaled:
        opt.grad_scale = torch.ones(1, device=device)
        opt.found_inf = torch.zeros(1, device=device)
    for _ in range(3):
        opt.step()
    request.getfixturevalue("no_waiting")
    for _ in range(5):
        if moving:  # gradients at new addresses: their table is renewed
            for p in params:
                p.grad = p.grad.clone()
        opt.step()
        opt.distances()
        opt.total_distance()


def test_an_lr_and_a_radius_on_the_device_are_not_waited_for(make, request, device):
    lr, radius = torch.tensor(0.01, device=device), torch.tensor(0.9, device=device)
    _, opt = make(capturable=True, lr=lr, radius=radius)
    for _ in range(3):
        opt.step()
    request.getfixturevalue("no_waiting")
    for _ in range(5):
        opt.step()


@pytest.mark.parametrize("tensors", [70, 224])
def test_gradients_at_new_addresses_cost_no_launch(make, tensors):
    params, opt = make([(300, 7)] * tensors)
    for _ in range(3):
        opt.step()
    grads = [[p.grad.clone() for p in params] for _ in range(10)]

    def step():
        for p, grad in zip(params, grads.pop(), strict=True):
            p.grad = grad
        opt.step()

    names = launches(step, 10)
    assert len(names) == 10, sorted(set(names))


@pytest.mark.parametrize("tensors", [225, 700])
def test_more_gradients_than_a_launch_carries_cost_launches_only_when_they_move(make, tensors):
    params, opt = make([(30, 7)] * tensors)
    for _ in range(3):
        opt.step()
    assert len(launches(opt.step, 10)) == 10
    for p in params:
        p.grad = p.grad.clone()
    assert len(launches(opt.step, 1)) > 1
