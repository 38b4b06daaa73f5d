"""Reference copies: how they lie in memory, and what counts as lying alike."""

import pytest
import torch

from d3fast.optim.anchors import resolve_references
from d3fast.optim.layout import is_dense, match_layout, same_layout


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


def test_copies_lie_like_their_parameters_and_record_no_gradient():
    params = [torch.nn.Parameter(torch.randn(4, 3).T), torch.nn.Parameter(torch.randn(2, 3, 2, 2))]
    params[1].data = params[1].data.contiguous(memory_format=torch.channels_last)
    given = [torch.randn(3, 4, requires_grad=True), torch.randn(2, 3, 2, 2)]
    copies = resolve_references(given, params, None, None)
    for copy, p, g in zip(copies, params, given, strict=True):
        assert copy.stride() == p.stride()
        assert torch.equal(copy, g)
        assert not copy.requires_grad
        assert copy.data_ptr() != g.data_ptr()


def test_copies_take_the_dtype_asked_for_or_that_of_the_parameter():
    param, given = torch.ones(2, dtype=torch.float32), [torch.ones(2, dtype=torch.float64)]
    assert resolve_references(given, [param], None, None)[0].dtype == torch.float32
    assert resolve_references(given, [param], None, torch.float64)[0].dtype == torch.float64


def test_a_mapping_is_read_by_name_and_may_hold_more():
    params = [torch.zeros(1), torch.zeros(2)]
    given = {"b": torch.ones(2), "a": torch.full((1,), 2.0), "c": torch.ones(9)}
    first, second = resolve_references(given, params, ["a", "b"], None)
    assert first.tolist() == [2.0]
    assert second.tolist() == [1.0, 1.0]
