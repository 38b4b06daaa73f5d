"""bfloat16 and float16 weights: arithmetic in float32, and small updates that are not lost."""

import copy
import io

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD
from d3fast.optim.kahan import kahan_load, kahan_store

OPTIONS = {"lr": 1e-4, "momentum": 0.9}


@pytest.fixture(params=[torch.bfloat16, torch.float16], ids=["bf16", "f16"])
def half(request):
    """Both half types."""
    return request.param


def head(dtype, **options):
    """An optimizer over weights of a half type, or over the same numbers in a wider one."""
    g = torch.Generator().manual_seed(0)
    numbers = (0.1 * torch.randn(10, 32, generator=g)).to(torch.bfloat16)
    weights = nn.Parameter(numbers.to(dtype))
    if dtype == torch.float64:
        options["backend"] = "reference"
    return weights, D3FusedSGD([weights], track="all", **{**OPTIONS, **options})


def descend(weights, opt, steps, start=0):
    """Gradients of norm 1 that every dtype holds exactly, half direction and half noise."""
    direction = torch.randn(10, 32, generator=torch.Generator().manual_seed(1))
    for t in range(start, start + steps):
        noise = torch.randn(10, 32, generator=torch.Generator().manual_seed(2 + t))
        weights.grad = ((direction + noise) / 25).to(torch.bfloat16).to(weights.dtype)
        opt.step()
    return weights.detach()


def way_lost(got, want, start):
    """``||got - want|| / ||want - start||`` in float64."""
    got, want, start = (x.detach().double() for x in (got, want, start))
    return float((got - want).norm() / (want - start).norm())


@pytest.mark.parametrize("constraint", ["norm_sphere", "norm_ball", None])
def test_200_small_steps_arrive_where_float64_does(half, constraint, backend):
    weights, opt = head(half, backend=backend, constraint=constraint)
    twin, exact = head(torch.float64, constraint=constraint)
    start = twin.detach().clone()
    want = descend(twin, exact, 200)
    rounded_once = way_lost(want.to(half), want, start)
    assert way_lost(descend(weights, opt, 200), want, start) <= 1.5 * rounded_once


@pytest.mark.parametrize("lr", [1e-4, 1e-3, 1e-2])
def test_1000_steps_of_the_kernels_lose_no_more_than_rounding_the_result_does(half, lr):
    weights, opt = head(half, lr=lr, backend="fused", momentum_dtype=torch.float32)
    twin, exact = head(torch.float64, lr=lr)
    start = twin.detach().clone()
    want = descend(twin, exact, 1000)
    rounded_once = way_lost(want.to(half), want, start)
    assert way_lost(descend(weights, opt, 1000), want, start) <= 1.5 * rounded_once


def test_without_compensation_the_same_steps_would_be_lost(backend):
    weights, opt = head(torch.bfloat16, backend=backend)
    twin, exact = head(torch.float64)
    start = twin.detach().clone()
    for t in range(200):
        descend(weights, opt, 1, start=t)
        opt.state[weights]["compensation"].zero_()
    assert way_lost(weights, descend(twin, exact, 200), start) > 0.5


def test_weights_and_remainder_make_up_the_float32_weight_to_the_square_of_epsilon(half):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    theta, c = torch.empty(1000, dtype=half), torch.empty(1000, dtype=half)
    kahan_store(x, theta, c)
    assert torch.equal(theta, x.to(half))
    off = (kahan_load(theta, c) - x).abs()
    # A remainder of float16 cannot be finer than its least subnormal number.
    assert (
        off <= torch.finfo(half).eps ** 2 / 4 * x.abs() + (half == torch.float16) * 2**-25
    ).all()


def test_a_remainder_of_the_largest_size_is_not_dropped(half):
    theta, c = torch.zeros(1, dtype=half), torch.zeros(1, dtype=half)
    tie = torch.tensor([1 + torch.finfo(half).eps / 2])
    kahan_store(tie, theta, c)
    assert kahan_load(theta, c).equal(tie)


def test_a_remainder_does_not_outlive_the_weight_it_belongs_to(half, backend):
    weights, opt = head(half, backend=backend)
    descend(weights, opt, 20)
    assert opt.state[weights]["compensation"].abs().max() > 0
    with torch.no_grad():
        weights.zero_()
    weights.grad = torch.zeros_like(weights)
    twin, other = head(half, backend=backend)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    other.state[twin]["compensation"].zero_()
    twin.data.zero_()
    twin.grad = torch.zeros_like(twin)
    opt.step()
    other.step()
    assert torch.equal(weights, twin)


def test_an_overflow_is_infinite_and_not_nan(half):
    theta, c = torch.zeros(1, dtype=half), torch.zeros(1, dtype=half)
    kahan_store(torch.tensor([3.4e38]), theta, c)
    assert torch.isinf(theta).all()
    assert torch.isinf(kahan_load(theta, c)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wider_types_keep_no_compensation(dtype):
    weights, opt = head(dtype, backend="reference")
    descend(weights, opt, 1)
    assert set(opt.state[weights]) == {"momentum_buffer", "reference"}


def test_untracked_groups_keep_none_and_round_like_torch_sgd(half, backend):
    weights, opt = head(half, backend=backend, distance_weight=0, constraint=None)
    descend(weights, opt, 1)
    assert set(opt.state[weights]) == {"momentum_buffer"}


def test_the_state_beside_a_half_weight_is_of_its_dtype(half, backend):
    weights, opt = head(half, backend=backend)
    descend(weights, opt, 1)
    kinds = {name: x.dtype for name, x in opt.state[weights].items() if name != "distance"}
    assert kinds == dict.fromkeys(("momentum_buffer", "reference", "compensation"), half)


def test_resuming_at_step_10_equals_20_steps_bit_for_bit(half, backend):
    weights, opt = head(half, backend=backend)
    want = descend(weights, opt, 20)
    first, before = head(half, backend=backend)
    descend(first, before, 10)
    file = io.BytesIO()
    torch.save([first.detach(), before.state_dict()], file)
    file.seek(0)
    saved, state = torch.load(file, weights_only=True)
    second = nn.Parameter(saved)
    after = D3FusedSGD([second], track="all", backend=backend, **OPTIONS)
    after.load_state_dict(state)
    assert torch.equal(descend(second, after, 10, start=10), want)
    kept = (opt.state[weights]["compensation"], after.state[second]["compensation"])
    assert torch.equal(*kept)


def test_a_state_saved_without_compensation_loads_and_starts_one(half, backend):
    weights, opt = head(half, backend=backend)
    descend(weights, opt, 5)
    state = copy.deepcopy(opt.state_dict())
    del state["state"][0]["compensation"]
    opt.load_state_dict(state)
    descend(weights, opt, 5)
    assert opt.state[weights]["compensation"].abs().max() > 0


def test_a_step_that_amp_skips_leaves_the_remainder_alone(half, backend):
    weights, opt = head(half, backend=backend)
    descend(weights, opt, 3)
    before = [weights.detach().clone(), opt.state[weights]["compensation"].clone()]
    opt.grad_scale, opt.found_inf = torch.ones(1), torch.ones(1)
    opt.step()
    assert torch.equal(weights, before[0])
    assert torch.equal(opt.state[weights]["compensation"], before[1])


def test_momentum_in_float32_comes_closer_to_float64_than_in_the_weights_dtype(backend):
    twin, exact = head(torch.float64, lr=0.05)
    start = twin.detach().clone()
    want = descend(twin, exact, 100)
    lost = []
    for dtype in (torch.float32, None):
        weights, opt = head(torch.bfloat16, backend=backend, lr=0.05, momentum_dtype=dtype)
        descend(weights, opt, 100)
        assert opt.state[weights]["momentum_buffer"].dtype == (dtype or torch.bfloat16)
        known = kahan_load(weights.detach(), opt.state[weights]["compensation"])
        lost.append(way_lost(known, want, start))
    assert lost[0] < lost[1] / 10


def test_a_float32_momentum_resumes_to_the_same_bits(half, backend):
    options = {"momentum_dtype": torch.float32, "dampening": 0.2}
    weights, opt = head(half, backend=backend, **options)
    want = descend(weights, opt, 20)
    first, before = head(half, backend=backend, **options)
    descend(first, before, 10)
    second = nn.Parameter(first.detach().clone())
    after = D3FusedSGD([second], track="all", backend=backend, **OPTIONS)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    assert after.state[second]["momentum_buffer"].dtype == torch.float32
    assert torch.equal(descend(second, after, 10, start=10), want)


@pytest.mark.parametrize("scope", ["tensor", "group"])
def test_a_bf16_reference_beside_f32_weights_steps_as_its_values_in_f32(
    scope, far_apart, descend, same_bits
):
    options = {"momentum": 0.9, "scope": scope, "backend": "reference"}
    _, narrow = far_apart(reference_dtype=torch.bfloat16, **options)
    kept = [state["reference"] for state in narrow.state.values()]
    assert all(theta_0.dtype == torch.bfloat16 for theta_0 in kept)
    _, wide = far_apart(reference=[theta_0.float() for theta_0 in kept], **options)
    assert same_bits(descend(narrow, 5), descend(wide, 5))
    assert same_bits(narrow.distances().values(), wide.distances().values())
