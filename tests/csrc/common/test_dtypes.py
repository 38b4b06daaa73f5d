"""Half types are rounded as torch rounds them, and compensations are read back."""

import ctypes

import pytest
import torch

HALVES = {"bf16": torch.bfloat16, "f16": torch.float16}


def every_kind_of_number():
    """Numbers of each exponent, those halfway between neighbours of a half type, and extremes."""
    g = torch.Generator().manual_seed(0)
    exponents = torch.arange(-150, 128).repeat_interleave(20)
    drawn = torch.ldexp(torch.rand(len(exponents), generator=g) * 2 - 1, exponents)
    ties = torch.cat([1 + torch.arange(64) * 2.0**-9, 1 + torch.arange(64) * 2.0**-12])
    extremes = [0.0, -0.0, 65504.0, 65519.9, 65520.0, 2.0**-24, 2.0**-25, torch.inf, -torch.inf]
    return torch.cat([drawn, ties, torch.tensor(extremes)]).float()


@pytest.mark.parametrize("name", HALVES)
def test_a_half_type_is_rounded_to_nearest_even(common, name):
    x = every_kind_of_number()
    values, bits = torch.empty_like(x), torch.empty(len(x), dtype=torch.int16)
    addresses = (ctypes.c_void_p(t.data_ptr()) for t in (values, bits))
    pointer, count = ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(len(x))
    getattr(common, f"round_{name}")(pointer, count, *addresses)
    want = x.to(HALVES[name])
    assert torch.equal(bits, want.view(torch.int16))
    assert torch.equal(values, want.float())


@pytest.mark.parametrize(
    ("theta", "c", "weight"),
    [
        (1.0, 2.0**-9, 1.0 + 2.0**-9),
        (1.0, 2.0**-8, 1.0 + 2.0**-8),  # half a spacing: what rounding can take off
        (1.0, 2.0**-7, 1.0),  # of another theta
        (0.0, 0.0, 0.0),
        (torch.inf, torch.inf, torch.inf),
        (torch.inf, -torch.inf, torch.inf),
    ],
)
def test_a_compensation_counts_where_it_can_belong_to_the_weight(common, theta, c, weight):
    common.load_bf16.restype = ctypes.c_float
    assert common.load_bf16(ctypes.c_float(theta), ctypes.c_float(c)) == weight
