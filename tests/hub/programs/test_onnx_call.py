# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from d3fast.hub.programs.onnx_call import Call
from d3fast.io.onnx_file import Node


def call(*given, device=None, **attributes):
    return Call(Node("Op", "", (), (), attributes), 17, given, device)


def test_an_attribute_has_the_type_of_its_default():
    assert call(alpha=1).attribute("alpha", 0.5) == 1.0
    assert call().attribute("alpha", 0.5) == 0.5
    with pytest.raises(ValueError, match="'axis' of another type"):
        call(axis="text").attribute("axis", 1)


def test_a_list_may_be_an_input_or_an_attribute():
    assert call(None, torch.tensor([1, 2])).ints(1, "axes") == [1, 2]
    assert call(None, axes=[3]).ints(1, "axes") == [3]
    assert call().ints(1, "axes") is None
    with pytest.raises(ValueError, match="lacks 'axes'"):
        call().needed(1, "axes")
    with pytest.raises(ValueError, match="another type"):
        call(axes=["text"]).ints(1, "axes")


def test_a_list_must_not_depend_on_the_pixels():
    with pytest.raises(ValueError, match="depends on the pixels"):
        call(torch.empty(2, device="meta")).ints(0, "shape")
    with pytest.raises(ValueError, match="depends on the pixels"):
        call(torch.empty(2, device="meta")).fixed(0)


def test_inputs_meet_where_one_of_them_is():
    mixed = call(torch.ones(1), torch.empty(2, device="meta"))
    assert all(each.is_meta for each in mixed.all())
    assert call(torch.ones(1), device=torch.device("meta"))[0].is_meta


def test_an_input_that_is_left_out_is_named():
    with pytest.raises(ValueError, match="Op lacks its input 1"):
        call(torch.ones(1), None)[1]
    assert call(torch.ones(1)).get(5) is None
