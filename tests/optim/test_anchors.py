"""Reference copies of theta_0, from the weights, a list or a mapping."""

import torch

from d3fast.optim.anchors import resolve_references


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
