"""The fused kernels against the float64 reference backend, over shapes, strides and options."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d3fast import D3FusedSGD

# The CPU kernels cut tensors every 32768 elements and share units above 131072 between cores.
SHAPES = [(), (0,), (1,), (2,), (7,), (3, 5), (0, 3), (64, 33), (2, 3, 5, 4), (1, 4, 1, 6)]
LAYOUTS = ["contiguous", "reversed", "channels_last", "offset"]
CONSTRAINTS = [
    {"constraint": None},
    {"constraint": "norm_sphere"},
    {"constraint": "norm_sphere", "radius": 0.7},
    {"constraint": "norm_ball"},
    {"constraint": "norm_ball", "radius": 40.0, "radius_unit": "absolute"},
    {"constraint": "distance_ball", "radius": 3.0},
    {"constraint": "distance_ball", "radius": 1.5, "radius_unit": "absolute"},
    {"constraint": "distance_floor", "radius": 6.0},
    {"constraint": "distance_floor", "radius": 0.1},
    {"constraint": "distance_shell", "radius": (4.0, 4.5)},
    {"constraint": "distance_shell", "radius": (5.0, 60.0), "radius_unit": "absolute"},
]


@dataclass
class Example:
    shape: tuple
    layout: str
    grad_layout: str


def lay_out(values, layout):
    """The same values with other strides."""
    if layout == "reversed":
        order = tuple(reversed(range(values.dim())))
        return values.permute(order).contiguous().permute(order)
    if layout == "channels_last" and values.dim() == 4:
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "offset":
        return torch.empty(values.numel() + 1, dtype=values.dtype)[1:].view_as(values).copy_(values)
    if layout == "gaps":
        return torch.empty(*values.shape, 2, dtype=values.dtype)[..., 0].copy_(values)
    return values.contiguous()


@st.composite
def option_sets(draw):
    momentum = draw(st.sampled_from([0.0, 0.5, 0.9]))
    nesterov = momentum > 0 and draw(st.booleans())
    return {
        "lr": draw(st.sampled_from([0.001, 0.01, 0.05])),
        "momentum": momentum,
        "nesterov": nesterov,
        "dampening": 0.0 if nesterov else draw(st.sampled_from([0.0, 0.3])),
        "weight_decay": draw(st.sampled_from([0.0, 0.01])),
        "maximize": draw(st.booleans()),
        "distance_weight": draw(st.sampled_from([0.0, 0.5, 2.0])),
        "distance_p": draw(st.sampled_from([1.0, 2.0])),
        "scope": draw(st.sampled_from(["tensor", "group"])),
        "reference": draw(st.sampled_from(["given", "far"])),
        **draw(st.sampled_from(CONSTRAINTS)),
    }


TENSORS = st.builds(
    Example,
    st.sampled_from(SHAPES),
    st.sampled_from(LAYOUTS),
    st.sampled_from([*LAYOUTS, "gaps"]),
)
GROUPS = st.lists(
    st.tuples(option_sets(), st.lists(TENSORS, min_size=1, max_size=4)), min_size=1, max_size=3
)


def trajectory(groups, dtype, backend, seed, steps=20, optimizer=D3FusedSGD):
    # float32 can follow float64 only where the step is continuous: sign(delta) at p = 1 and
    # delta/D of a tiny tensor are not, at 0. So every element starts on the far side of 0 from its
    # reference, and gradients push it further: no rescaling brings it back.
    g = torch.Generator().manual_seed(seed)
    described, sides = [], []
    for options, tensors in groups:
        params, references = [], []
        for t in tensors:
            side = torch.randint(0, 2, t.shape, generator=g).double() * 2 - 1
            theta_0 = -side * (0.1 + 0.4 * torch.rand(t.shape, generator=g, dtype=torch.float64))
            theta = side * (0.5 + torch.rand(t.shape, generator=g, dtype=torch.float64))
            start = theta if options["reference"] == "given" else theta_0
            params.append(nn.Parameter(lay_out(start.to(dtype), t.layout)))
            references.append(theta_0.to(dtype))
            sides.append((-side if options["maximize"] else side, t.grad_layout))
        given = {"reference": references} if options["reference"] == "given" else {}
        described.append({"params": params, **{**options, "reference": None}, **given})
    far = [d["params"] for d in described if d["reference"] is None]
    opt = optimizer(described, track="all", backend=backend)
    with torch.no_grad():
        for p in (p for params in far for p in params):
            p.neg_()
    params = [p for d in described for p in d["params"]]
    for _ in range(steps):
        for p, (side, layout) in zip(params, sides, strict=True):
            grad = -side * (0.2 + torch.rand(p.shape, generator=g, dtype=torch.float64))
            p.grad = lay_out(grad.to(dtype), layout)
        opt.step()
    return params, opt


def agrees(groups, seed, relative_error, dtype, bound, **options):
    got, opt = trajectory(groups, dtype, "fused", seed, **options)
    want, oracle = trajectory(groups, torch.float64, "reference", seed, **options)
    if sum(p.numel() for p in want):
        assert relative_error(got, want) <= bound
    for key, distance in oracle.distances().items():
        assert float(opt.distances()[key]) == pytest.approx(float(distance), rel=20 * bound)


@settings(max_examples=120)
@given(groups=GROUPS, seed=st.integers(0, 99))
def test_float32_follows_the_float64_reference_for_20_steps(relative_error, groups, seed):
    agrees(groups, seed, relative_error, torch.float32, 1e-5)


@settings(max_examples=8)
@given(options=option_sets(), layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 9))
@pytest.mark.parametrize("shapes", [[(32767,), (32769,), (182, 181)], [(380, 370), (3,)]])
def test_tensors_cut_into_chunks_follow_the_float64_reference(
    relative_error, shapes, options, layout, seed
):
    group = [Example(shape, layout, "contiguous") for shape in shapes]
    agrees([(options, group)], seed, relative_error, torch.float32, 1e-5)


@settings(max_examples=60)
@given(groups=GROUPS, seed=st.integers(0, 99))
def test_float64_kernels_give_the_reference_to_rounding(relative_error, groups, seed):
    agrees(groups, seed, relative_error, torch.float64, 1e-13)
