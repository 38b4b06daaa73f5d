"""The fused kernels over bfloat16 and float16 weights, against the same steps in plain PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d3fast import D3FusedSGD
from d3fast.optim.kahan import kahan_load
from tests.optim.backends.test_native import (
    GROUPS,
    LAYOUTS,
    Example,
    lay_out,
    option_sets,
    trajectory,
)

HALVES = [torch.bfloat16, torch.float16]
WIDER = st.sampled_from([None, torch.float32])


@pytest.fixture(params=HALVES, ids=["bf16", "f16"])
def half(request):
    """Both half types."""
    return request.param


def known(p, opt):
    """The weight that steps are taken from, in float64."""
    return kahan_load(p.detach(), opt.state[p].get("compensation")).double()


def spacing(x, dtype):
    """From a float64 number to the next one of a dtype, at least that of its normal numbers."""
    kind = torch.finfo(dtype)
    return 2.0 ** x.abs().clamp(min=kind.tiny).log2().floor() * kind.eps


def follows(groups, seed, half, momentum_dtype):
    """20 steps: theta to one spacing, theta + c to a small part of one.

    A momentum of the half type is rounded at every step, and a last bit of float32 decides some of
    these roundings otherwise; where none is, only theta + c itself is rounded. A weight that a
    projection brought near 0 was rounded where it came from.
    """
    wide = [({**options, "momentum_dtype": momentum_dtype}, tensors) for options, tensors in groups]
    got, opt = trajectory(wide, half, "fused", seed)
    want, twin = trajectory(wide, half, "reference", seed)
    for p, q in zip(got, want, strict=True):
        x, y = known(p, opt), known(q, twin)
        if not y.numel():
            continue
        unit = spacing(y.abs() + 0.1 * y.abs().max(), half)
        assert bool(((p.double() - q.double()).abs() <= unit).all())
        compensated, v = "compensation" in opt.state[p], opt.state[p].get("momentum_buffer")
        if compensated and (v is None or v.dtype == torch.float32):
            assert bool(((x - y).abs() <= 0.05 * unit).all())
        elif compensated:
            assert bool(((x - y).abs() <= unit).all())
        if v is not None:
            assert v.dtype == (momentum_dtype or half)
            assert v.stride() == p.stride()
    for key, distance in twin.distances().items():
        assert float(opt.distances()[key]) == pytest.approx(float(distance), rel=0.01)


@settings(max_examples=25)
@given(groups=GROUPS, seed=st.integers(0, 99), momentum_dtype=WIDER)
@pytest.mark.parametrize("half", HALVES, ids=["bf16", "f16"])
def test_20_steps_follow_the_plain_ones(half, groups, seed, momentum_dtype):
    follows(groups, seed, half, momentum_dtype)


@settings(max_examples=4)
@given(
    options=option_sets(),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 9),
    momentum_dtype=WIDER,
)
@pytest.mark.parametrize("shapes", [[(32769,), (91, 90)], [(380, 370), (3,)]])
@pytest.mark.parametrize("half", HALVES, ids=["bf16", "f16"])
def test_tensors_cut_into_chunks_follow_the_plain_ones(
    half, shapes, options, layout, seed, momentum_dtype
):
    group = [Example(shape, layout, "contiguous") for shape in shapes]
    follows([(options, group)], seed, half, momentum_dtype)


@settings(max_examples=20)
@given(groups=GROUPS, seed=st.integers(0, 99))
def test_a_bf16_reference_beside_float32_follows_the_plain_steps(relative_error, groups, seed):
    narrow = [
        ({**options, "reference_dtype": torch.bfloat16}, tensors) for options, tensors in groups
    ]
    got, opt = trajectory(narrow, torch.float32, "fused", seed)
    want, twin = trajectory(narrow, torch.float32, "reference", seed)
    if sum(p.numel() for p in want):
        assert relative_error(got, want) <= 1e-5
    for key, distance in twin.distances().items():
        assert float(opt.distances()[key]) == pytest.approx(float(distance), rel=1e-4)


NARROW = {"reference_dtype": torch.bfloat16, "momentum_dtype": torch.bfloat16}


@settings(max_examples=20)
@given(groups=GROUPS, seed=st.integers(0, 99))
def test_a_bf16_momentum_and_reference_beside_float32_follow_the_plain_steps(
    relative_error, groups, seed
):
    narrow = [({**options, **NARROW}, tensors) for options, tensors in groups]
    got, opt = trajectory(narrow, torch.float32, "fused", seed)
    want, twin = trajectory(narrow, torch.float32, "reference", seed)
    if sum(p.numel() for p in want):
        # A last bit of float32 may round a momentum otherwise, by 2^-8 of it.
        assert relative_error(got, want) <= 1e-3
    for p, q in zip(got, want, strict=True):
        v = opt.state[p].get("momentum_buffer")
        if v is not None:
            assert v.dtype == torch.bfloat16
            w = twin.state[q]["momentum_buffer"].double()
            assert bool(((v.double() - w).abs() <= 2 * spacing(w, v.dtype)).all())
    for key, distance in twin.distances().items():
        assert float(opt.distances()[key]) == pytest.approx(float(distance), rel=1e-3)


def test_an_untracked_group_steps_with_a_bf16_momentum_beside_float32(same_bits):
    results = []
    for backend in ("fused", "reference"):
        p = nn.Parameter(torch.linspace(-1, 1, 1000))
        options = {"distance_weight": 0.0, "constraint": None, "backend": backend}
        opt = D3FusedSGD([p], lr=0.5, momentum=0.5, momentum_dtype=torch.bfloat16, **options)
        for t in range(3):
            p.grad = torch.full_like(p, 1.0 + t)  # exact in bf16, and so are the sums
            opt.step()
        results.append([p.detach(), opt.state[p]["momentum_buffer"]])
    assert results[0][1].dtype == torch.bfloat16
    assert same_bits(*results)


@pytest.mark.parametrize("momentum", [{}, {"dampening": 0.1}, {"nesterov": True}], ids=str)
def test_a_stale_norm_is_put_right_beside_a_bf16_momentum(momentum, far_apart, descend):
    def edit(t, params):
        if t == 3:
            params[0].data.mul_(3.0)

    options = {"momentum": 0.9, "weight_decay": 0.01, **NARROW, **momentum}
    results = []
    for backend in ("fused", "reference"):
        params, opt = far_apart(backend=backend, **options)
        descend(opt, 6, between=edit)
        results.append([p.detach().double() for p in params])
    for x, y in zip(*results, strict=True):
        assert float((x - y).norm()) <= 1e-3 * float(y.norm())


def test_auto_takes_the_kernels_and_warns_of_nothing(half):
    p = nn.Parameter(torch.ones(4, dtype=half))
    p.grad = torch.ones_like(p)
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9)  # a warning would be an error here
    opt.step()
    assert "distance" in opt.state[p]


@pytest.mark.parametrize("momentum", [{}, {"dampening": 0.1}, {"nesterov": True}], ids=str)
@pytest.mark.parametrize("factor", [3.0, 0.3, 0.0])
def test_a_norm_that_an_edit_made_stale_is_put_right(half, momentum, factor, far_apart, descend):
    def edit(t, params):
        if t == 3:
            params[0].data.mul_(factor)
            params[4].data[100] += 50.0 * factor

    options = {"momentum": 0.9 if momentum else 0.0, "weight_decay": 0.01, **momentum}
    results = []
    for backend in ("fused", "reference"):
        params, opt = far_apart(half, backend=backend, **options)
        descend(opt, 6, between=edit)
        results.append([known(p, opt) for p in params])
    for x, y in zip(*results, strict=True):
        assert float((x - y).norm()) <= torch.finfo(half).eps / 4 * float(y.norm())


def test_a_norm_is_not_taken_for_stale_because_weights_were_rounded(half, far_apart, descend):
    """Or every step would be mended, and resuming would not repeat the run."""
    params, opt = far_apart(half, shapes=((40_000,),), momentum=0.9, lr=1e-3)
    for t in range(8):
        descend(opt, 1, start=t)
        (p,) = params
        delta = known(p, opt) - opt.state[p]["reference"].double()
        tolerance = 1e-5 + 2 * {torch.bfloat16: 2**-17, torch.float16: 2**-22}[half]
        assert float(opt.state[p]["distance"]) == pytest.approx(float(delta.norm()), rel=tolerance)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan], ids=str)
def test_a_gradient_that_is_no_number_spoils_what_it_spoils_in_plain_steps(half, value):
    finite = []
    for backend in ("fused", "reference"):
        p = nn.Parameter(torch.linspace(-1, 1, 50).to(half))
        opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, constraint=None, backend=backend)
        p.grad = torch.zeros_like(p)
        p.grad[7] = value
        opt.step()
        p.grad.zero_()
        opt.step()
        finite.append([p.detach().isfinite(), p.detach().isnan()])
    assert torch.equal(*[f[0] for f in finite])
    assert torch.equal(*[f[1] for f in finite])


def test_weights_past_the_largest_number_are_infinite(half):
    p = nn.Parameter(torch.full((20,), torch.finfo(half).max, dtype=half))
    opt = D3FusedSGD(
        [p], track="all", lr=1.0, constraint=None, distance_weight=1.0, backend="fused"
    )
    p.grad = torch.full_like(p, -torch.finfo(half).max)
    opt.step()
    assert torch.isposinf(p).all()


@pytest.mark.parametrize("overflow", [0.0, 1.0])
@pytest.mark.parametrize("tracked", [True, False])
def test_gradients_are_unscaled_in_place_unless_they_overflowed(half, overflow, tracked):
    options = {} if tracked else {"distance_weight": 0.0, "constraint": None}
    results = []
    for backend in ("fused", "reference"):
        g = torch.Generator().manual_seed(0)
        p = nn.Parameter(torch.randn(37, generator=g).to(half))
        opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend=backend, **options)
        opt.grad_scale, opt.found_inf = torch.tensor(3.0), torch.tensor(overflow)
        for _ in range(2):
            p.grad = torch.randn(37, generator=g).to(half)
            opt.step()
        results.append([p.detach(), p.grad, known(p, opt)])
    (p, grad, x), (q, want, y) = results
    assert torch.equal(grad, want)
    assert bool(((x - y).abs() <= 0.05 * spacing(y, half)).all()) or not tracked
    assert bool(((p.double() - q.double()).abs() <= spacing(y, half)).all())


def test_strides_of_the_state_follow_the_weights(half):
    p = nn.Parameter(torch.randn(4, 3, 5, 2).to(half).contiguous(memory_format=torch.channels_last))
    opt = D3FusedSGD(
        [p], track="all", lr=0.1, momentum=0.9, momentum_dtype=torch.float32, backend="fused"
    )
    p.grad = lay_out(torch.randn(4, 3, 5, 2).to(half), "contiguous")
    opt.step()
    state = opt.state[p]
    for name in ("momentum_buffer", "reference", "compensation"):
        assert state[name].stride() == p.stride()


def test_a_momentum_dtype_may_change_between_steps(half, set_gradients):
    p = nn.Parameter(torch.ones(9, dtype=half))
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend="fused")
    for kind in (None, torch.float32, None):
        opt.param_groups[0]["momentum_dtype"] = kind
        set_gradients([p], 0)
        opt.step()
        assert opt.state[p]["momentum_buffer"].dtype == (kind or half)
