"""The CUDA kernels against the float64 reference backend on the host: fresh inputs in every run."""

import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d3fast import D3FusedSGD
from tests.optim.backends.test_native import GROUPS, LAYOUTS, Example, lay_out, option_sets

FRESH = settings(max_examples=60, derandomize=False, deadline=None)
CHUNKED = [[(8191,), (8193,), (91, 181)], [(380, 370), (3,)]]


def trajectory(groups, device, dtype, backend, seed, steps=20, optimizer=D3FusedSGD):
    """As in tests/optim/test_fused.py: the step is continuous along it, so float32 can follow."""
    g = torch.Generator().manual_seed(seed)
    described, sides = [], []
    for options, tensors in groups:
        params, references = [], []
        for t in tensors:
            side = torch.randint(0, 2, t.shape, generator=g).double() * 2 - 1
            theta_0 = -side * (0.1 + 0.4 * torch.rand(t.shape, generator=g, dtype=torch.float64))
            theta = side * (0.5 + torch.rand(t.shape, generator=g, dtype=torch.float64))
            params.append(nn.Parameter(lay_out(theta.to(dtype), t.layout).to(device)))
            references.append(theta_0.to(device, dtype))
            sides.append((-side if options["maximize"] else side, t.grad_layout))
        described.append({"params": params, **options, "reference": references})
    opt = optimizer(described, track="all", backend=backend)
    params = [p for d in described for p in d["params"]]
    for _ in range(steps):
        for p, (side, layout) in zip(params, sides, strict=True):
            grad = -side * (0.2 + torch.rand(p.shape, generator=g, dtype=torch.float64))
            p.grad = lay_out(grad.to(dtype), layout).to(device)
        opt.step()
    return params, opt


def agrees(groups, seed, device, relative_error, bound=1e-5):
    got, opt = trajectory(groups, device, torch.float32, "fused", seed)
    want, oracle = trajectory(groups, "cpu", torch.float64, "reference", seed)
    if sum(p.numel() for p in want):
        assert relative_error(got, want) <= bound
    for key, distance in oracle.distances().items():
        assert float(opt.distances()[key]) == pytest.approx(float(distance), rel=20 * bound)


@FRESH
@given(groups=GROUPS, seed=st.integers(0, 2**31))
def test_20_steps_follow_the_reference(device, relative_error, groups, seed):
    agrees(groups, seed, device, relative_error)


@pytest.mark.parametrize("shapes", CHUNKED)
@settings(FRESH, max_examples=20)
@given(options=option_sets(), layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 2**31))
def test_tensors_of_many_blocks_follow_the_reference(
    device, relative_error, shapes, options, layout, seed
):
    group = [Example(shape, layout, "contiguous") for shape in shapes]
    agrees([(options, group)], seed, device, relative_error)


@pytest.mark.parametrize("scope", ["tensor", "group"])
def test_two_runs_are_equal_bit_for_bit(make, same_bits, scope):
    shapes = [(3_000_001,), (1000, 37), (5,)]
    runs = []
    for _ in range(2):
        params, opt = make(shapes, scope=scope)
        for _ in range(5):
            opt.step()
        runs.append([*params, *(opt.state[p]["distance"] for p in params)])
    assert same_bits(*runs)


@pytest.mark.parametrize("scope", ["tensor", "group"])
@pytest.mark.parametrize(
    "momentum", [{"momentum": 0.0}, {"dampening": 0.1}, {"nesterov": True}], ids=str
)
@pytest.mark.parametrize("factor", [3.0, 0.3, 0.0])
def test_an_edit_through_data_is_noticed(make, relative_error, momentum, scope, factor):
    results = []
    for backend in ("fused", "reference"):
        params, opt = make(scope=scope, backend=backend, **momentum)
        for t in range(4):
            if t == 2:
                params[0].data.mul_(factor)
                params[4].data[1234] += 50.0 * factor
            opt.step()
        results.append(params)
    assert relative_error(*results) <= 1e-5


@pytest.mark.parametrize("offset", [0, 1, 4])
def test_nothing_outside_the_tensors_is_touched(device, offset):
    g = torch.Generator().manual_seed(0)
    n, guard = 20_001, 512

    def guarded(fill):
        whole = torch.full((n + 2 * guard,), fill, device=device)
        inside = whole[guard + offset : guard + offset + n]
        inside.copy_(torch.randn(n, generator=g))
        outside = torch.ones(whole.shape, dtype=torch.bool, device=device)
        outside[guard + offset : guard + offset + n] = False
        return whole, inside, outside

    arrays = [guarded(float("nan")), guarded(float("nan")), guarded(-7.0)]
    p = nn.Parameter(arrays[0][1])
    opt = D3FusedSGD(
        [p], track="all", lr=0.1, momentum=0.9, reference=[torch.zeros(n, device=device)]
    )
    opt.state[p]["reference"], p.grad = arrays[1][1], arrays[2][1]
    before = [whole.clone() for whole, _, _ in arrays]
    for _ in range(3):
        opt.step()
    assert torch.isfinite(p).all()
    for (whole, _, outside), old in zip(arrays, before, strict=True):
        assert torch.equal(whole[outside].nan_to_num(3), old[outside].nan_to_num(3))


def test_garbage_left_in_freed_memory_does_not_matter(make, device, same_bits):
    results = []
    for poison in (False, True):
        if poison:
            blocks = [torch.full((n,), torch.nan, device=device) for n in (64, 4096, 1 << 20)] * 4
            del blocks
        params, opt = make()
        for _ in range(3):
            opt.step()
        results.append(params)
    assert same_bits(*results)


def test_more_than_2_to_the_31_elements(device):
    if os.environ.get("D3FAST_TEST_HUGE") != "1":
        pytest.skip("set D3FAST_TEST_HUGE=1 to step over 2^31 elements")
    n = 2**31 + 5
    if torch.cuda.mem_get_info(device)[0] < 18 * n:
        pytest.skip("too little GPU memory for 2^31 elements")
    p = nn.Parameter(torch.ones(n, device=device))
    p.grad = torch.ones(n, device=device)
    opt = D3FusedSGD([p], lr=0.5, constraint=None, distance_weight=0.0, backend="fused")
    opt.step()
    assert torch.equal(p[-5:], torch.full((5,), 0.5, device=device))
    assert bool((p == 0.5).all())
