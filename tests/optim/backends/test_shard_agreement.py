"""The error for ranks that are to step different tensors, and what a rank tells the others."""

import pytest
import torch

from d3fast.optim.backends import shard_agreement


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        (("w", True, True, "a"), ("w", False, False, ""), "w is tracked on 1 of 2 ranks"),
        (("w", True, True, "a"), ("w", True, False, "a"), "w has a gradient on 1 of 2 ranks"),
        (("w", True, True, "a"), ("w", True, True, "b"), "options of parameter w differ"),
        (("w", True, True, "a"), ("v", True, True, "a"), "w is tracked on 1 of 2 ranks"),
    ],
)
def test_the_error_names_the_parameter_and_what_differs(first, second, text):
    assert text in shard_agreement.difference([[first], [second]])


def test_equal_entries_differ_by_what_a_rank_has_to_measure():
    entry = ("w", True, True, "a")
    assert "measure the norms anew" in shard_agreement.difference([[entry], [entry]])


def test_the_order_is_named_where_nothing_else_differs():
    first, second = ("w", True, True, "a"), ("v", True, True, "a")
    text = shard_agreement.difference([[first, second], [second, first]])
    assert text == "the order of the parameters differs between ranks"


def test_plain_tensors_have_no_mesh_and_their_overflow_is_that_of_the_process():
    groups = [{"params": [torch.ones(2)]}]
    assert shard_agreement.meshes_of(groups) == []
    found_inf = torch.ones(1)
    agreed = shard_agreement.any_rank(found_inf, groups)
    assert agreed == found_inf
    assert agreed is not found_inf
