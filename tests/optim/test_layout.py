"""Memory layouts, and tensors whose memory does not hold their values."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD
from d3fast.optim.layout import is_deferred, is_dense, match_layout, same_layout


def empty(shape, stride):
    return torch.empty_strided(shape, stride)


@pytest.mark.parametrize(
    ("shape", "stride", "dense"),
    [
        ((), (), True),
        ((0,), (1,), True),
        ((0, 3), (3, 1), True),
        ((5,), (1,), True),
        ((5,), (2,), False),
        ((5,), (0,), False),
        ((3, 4), (4, 1), True),
        ((3, 4), (1, 3), True),
        ((3, 4), (5, 1), False),
        ((3, 4), (1, 1), False),
        ((2, 3, 4, 5), (60, 1, 15, 3), True),  # channels_last
        ((3, 1, 2), (2, 99, 1), True),  # sizes of 1 have no stride
        ((1, 1), (7, 7), True),
    ],
)
def test_is_dense(shape, stride, dense):
    assert is_dense(empty(shape, stride)) == dense


@pytest.mark.parametrize(
    ("shape", "first", "second", "same"),
    [
        ((3, 4), (4, 1), (4, 1), True),
        ((3, 4), (4, 1), (1, 3), False),
        ((3, 1), (1, 1), (1, 9), True),
        ((1, 4), (4, 1), (1, 1), True),
        ((), (), (), True),
    ],
)
def test_same_layout(shape, first, second, same):
    assert same_layout(empty(shape, first), empty(shape, second)) == same


def test_match_layout_copies_only_where_it_must():
    values = torch.arange(12.0).view(3, 4)
    assert match_layout(values, torch.empty(3, 4)) is values
    param = torch.empty(4, 3).T
    laid = match_layout(values, param)
    assert laid.stride() == param.stride()
    assert torch.equal(laid, values)


def test_match_layout_keeps_the_dtype_of_the_values():
    laid = match_layout(torch.ones(3, 4, dtype=torch.float64), torch.empty(4, 3).T)
    assert laid.dtype == torch.float64


def test_memory_that_does_not_hold_the_values_is_not_dense():
    for tensor in (torch._neg_view(torch.ones(3)), torch._efficientzerotensor(3)):
        assert is_deferred(tensor)
        assert not is_dense(tensor)
        laid = match_layout(tensor, torch.empty(3))
        assert not is_deferred(laid)
        assert torch.equal(laid, tensor)
    assert not is_deferred(torch.ones(3))


# ---------------------------------------------------------------- memory that lacks the values


def weight(*shape, seed=0, dtype=torch.float32):
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype))


def negative_view(tensor):
    """The same values in memory that holds the opposite ones, as autograd makes them."""
    return torch._neg_view(-tensor)


@pytest.mark.parametrize("shape", [(), (4,), (3, 2)])
def test_a_gradient_with_the_negative_bit_is_descended_along(shape, backend):
    plain, lazy = weight(*shape), weight(*shape)
    for p, wrap in ((plain, torch.clone), (lazy, negative_view)):
        opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, weight_decay=0.1, backend=backend)
        for t in range(3):
            p.grad = wrap(torch.full(shape, 1.0 + t))
            opt.step()
    assert torch.equal(plain, lazy)


def test_a_gradient_through_a_conjugate_is_descended_along(backend):
    p = nn.Parameter(torch.tensor(0.5))
    opt = D3FusedSGD([p], lr=0.1, distance_weight=0, constraint=None, backend=backend)
    (torch.complex(torch.ones(()), p).conj() * (2 + 1j)).real.backward()
    assert p.grad.is_neg()
    opt.step()
    assert p.item() == pytest.approx(0.4)


def test_a_scaled_gradient_with_the_negative_bit_is_unscaled_in_place(backend):
    p = weight(4)
    opt = D3FusedSGD([p], lr=0.1, distance_weight=0, constraint=None, backend=backend)
    p.grad, before = negative_view(torch.full((4,), 8.0)), p.detach().clone()
    opt.grad_scale = torch.tensor(4.0)
    opt.step()
    torch.testing.assert_close(p.detach(), before - 0.1 * 2)
    assert torch.equal(p.grad, torch.full((4,), 2.0))


def test_a_parameter_with_the_negative_bit_is_moved_the_right_way():
    lazy = nn.Parameter(negative_view(weight(4, 3).detach()))
    with pytest.warns(UserWarning, match="backend='reference'"):
        opt = D3FusedSGD([lazy], lr=0.1, distance_weight=0, constraint=None)
    lazy.grad, before = torch.ones(4, 3), lazy.detach().clone()
    opt.step()
    torch.testing.assert_close(lazy.detach(), before - 0.1)


def test_a_loaded_momentum_buffer_with_the_negative_bit_keeps_its_sign(backend):
    ends = []
    for wrap in (torch.clone, negative_view):
        p = weight(4, 3)
        opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, backend=backend)
        saved = opt.state_dict()
        saved["state"][0]["momentum_buffer"] = wrap(torch.ones(4, 3))
        opt.load_state_dict(saved)
        p.grad = torch.ones(4, 3)
        opt.step()
        ends.append(p.detach())
    assert torch.equal(*ends)


def test_a_zero_tensor_is_a_gradient_of_zeros(backend):
    ends = []
    for zeros in (torch.zeros, torch._efficientzerotensor):
        p = weight(4, 3)
        opt = D3FusedSGD([p], track="all", lr=0.1, momentum=0.9, weight_decay=0.1, backend=backend)
        for _ in range(2):
            p.grad = zeros(4, 3)
            opt.step()
        ends.append(p.detach())
    assert torch.equal(*ends)
