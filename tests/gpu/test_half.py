"""The CUDA kernels over half types against the plain steps on the host, inputs fresh each run."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3fast import D3FusedSGD
from tests.gpu.test_step import CHUNKED, FRESH, trajectory
from tests.optim.backends.test_native import GROUPS, LAYOUTS, Example, option_sets
from tests.optim.test_fused_half import HALVES, NARROW, WIDER, known, spacing

IDS = ["bf16", "f16"]


@pytest.fixture(params=HALVES, ids=IDS)
def half(request):
    """Both half types."""
    return request.param


def follows(groups, seed, device, half, momentum_dtype):
    """As in tests/optim/test_fused_half.py: theta to one spacing, theta + c to a part of one."""
    wide = [({**options, "momentum_dtype": momentum_dtype}, tensors) for options, tensors in groups]
    got, opt = trajectory(wide, device, half, "fused", seed)
    want, twin = trajectory(wide, "cpu", half, "reference", seed)
    for p, q in zip(got, want, strict=True):
        x, y = known(p, opt).cpu(), known(q, twin)
        if not y.numel():
            continue
        unit = spacing(y.abs() + 0.1 * y.abs().max(), half)
        assert bool(((p.detach().cpu().double() - q.detach().double()).abs() <= unit).all())
        v = opt.state[p].get("momentum_buffer")
        rounded = "compensation" not in opt.state[p] or (v is not None and v.dtype == half)
        assert bool(((x - y).abs() <= (1.0 if rounded else 0.05) * unit).all())


@settings(FRESH, max_examples=30)
@given(groups=GROUPS, seed=st.integers(0, 2**31), momentum_dtype=WIDER)
@pytest.mark.parametrize("half", HALVES, ids=IDS)
def test_20_steps_follow_the_plain_ones(device, half, groups, seed, momentum_dtype):
    follows(groups, seed, device, half, momentum_dtype)


@pytest.mark.parametrize("shapes", CHUNKED)
@settings(FRESH, max_examples=10)
@given(
    options=option_sets(),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 2**31),
    momentum_dtype=WIDER,
)
@pytest.mark.parametrize("half", HALVES, ids=IDS)
def test_tensors_of_many_blocks_follow_the_plain_steps(
    device, half, shapes, options, layout, seed, momentum_dtype
):
    group = [Example(shape, layout, "contiguous") for shape in shapes]
    follows([(options, group)], seed, device, half, momentum_dtype)


@settings(FRESH, max_examples=20)
@given(groups=GROUPS, seed=st.integers(0, 2**31))
def test_a_bf16_reference_beside_float32(device, relative_error, groups, seed):
    narrow = [
        ({**options, "reference_dtype": torch.bfloat16}, tensors) for options, tensors in groups
    ]
    got, _ = trajectory(narrow, device, torch.float32, "fused", seed)
    want, _ = trajectory(narrow, "cpu", torch.float32, "reference", seed)
    if sum(p.numel() for p in want):
        assert relative_error(got, want) <= 1e-5


@settings(FRESH, max_examples=20)
@given(groups=GROUPS, seed=st.integers(0, 2**31))
def test_a_bf16_momentum_and_reference_beside_float32(device, relative_error, groups, seed):
    narrow = [({**options, **NARROW}, tensors) for options, tensors in groups]
    got, _ = trajectory(narrow, device, torch.float32, "fused", seed)
    want, _ = trajectory(narrow, "cpu", torch.float32, "reference", seed)
    if sum(p.numel() for p in want):
        assert relative_error(got, want) <= 1e-3


@pytest.mark.parametrize("scope", ["tensor", "group"])
def test_two_runs_are_equal_bit_for_bit(make, same_bits, half, scope):
    runs = []
    for _ in range(2):
        params, opt = make([(3_000_001,), (1000, 37), (5,)], dtype=half, scope=scope)
        for _ in range(5):
            opt.step()
        runs.append([x for p in params for x in (p, *opt.state[p].values())])
    assert same_bits(*runs)


@pytest.mark.parametrize("offset", [0, 1, 8])
def test_nothing_outside_the_tensors_is_touched(device, half, offset):
    g = torch.Generator().manual_seed(0)
    n, guard = 20_001, 512

    def guarded():
        whole = torch.full((n + 2 * guard,), -7.0, device=device, dtype=half)
        inside = whole[guard + offset : guard + offset + n]
        inside.copy_(torch.randn(n, generator=g))
        outside = torch.ones(whole.shape, dtype=torch.bool, device=device)
        outside[guard + offset : guard + offset + n] = False
        return whole, inside, outside

    arrays = [guarded() for _ in range(5)]
    p = torch.nn.Parameter(arrays[0][1])
    reference = [torch.zeros(n, device=device)]
    opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, reference=reference, backend="fused")
    opt.state[p]["reference"], p.grad = arrays[1][1], arrays[2][1]
    opt.state[p]["momentum_buffer"] = arrays[3][1].zero_()
    opt.state[p]["compensation"] = arrays[4][1].zero_()
    for _ in range(3):
        opt.step()
    assert torch.isfinite(p).all()
    for whole, _, outside in arrays:
        assert bool((whole[outside] == -7.0).all())


def test_a_captured_step_is_the_eager_step(make, same_bits, warmed_up, half):
    results = []
    for captured in (False, True):
        params, opt = make(dtype=half, capturable=True, momentum_dtype=torch.float32)
        step = warmed_up(opt.step, captured)
        for _ in range(5):
            step()
        results.append([x for p in params for x in (p, opt.state[p]["compensation"])])
    assert same_bits(*results)
