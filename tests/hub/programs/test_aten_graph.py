# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch

from d3fast.hub.programs.aten_graph import Value, read_graph

_SIZES = [{"as_expr": {"expr_str": "__import__('os').abort()"}}, {"as_int": 1}, {"as_int": 4}]
_INPUT = {"name": "self", "arg": {"as_tensor": {"name": "x"}}, "kind": 1}
_NODE = {
    "target": "torch.ops.aten.relu.default",
    "inputs": [_INPUT],
    "outputs": [{"as_tensor": {"name": "y"}}],
}
GRAPH = {
    "graph_module": {
        "graph": {"nodes": [_NODE], "tensor_values": {"x": {"sizes": _SIZES, "dtype": 7}}},
        "signature": {
            "input_specs": [
                {"parameter": {"arg": {"name": "p"}, "parameter_name": "fc.weight"}},
                {"user_input": {"arg": {"as_tensor": {"name": "x"}}}},
            ],
            "output_specs": [{"user_output": {"arg": {"as_tensor": {"name": "y"}}}}],
        },
    }
}


def changed(argument=None, **changes):
    held = copy.deepcopy(GRAPH)
    (node,) = held["graph_module"]["graph"]["nodes"]
    node.update(changes)
    if argument is not None:
        node["inputs"][0]["arg"] = argument
    return read_graph(held)


def test_a_graph_is_plain_data():
    found = read_graph(GRAPH)
    assert found.nodes[0].target == "relu.default"
    assert found.nodes[0].arguments == (("self", Value("x")),)
    assert (found.inputs, found.outputs) == (("x",), ("y",))
    assert found.weights == {"p": "fc.weight"}
    assert found.trained == {"p"}


def test_an_expression_is_a_free_size_and_is_not_evaluated():
    found = read_graph(GRAPH)
    assert (found.shape, found.dtype) == ((None, 1, 4), torch.float32)


_NONE = {"as_none": True}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        (_NONE, None),
        ({"as_ints": [1, 2]}, [1, 2]),
        ({"as_sym_ints": [{"as_name": "n"}, {"as_int": 3}]}, [Value("n"), 3]),
        ({"as_sym_int": {"as_name": "n"}}, Value("n")),
        ({"as_tensors": [{"name": "a"}]}, [Value("a")]),
        ({"as_optional_tensors": [_NONE, {"as_tensor": {"name": "a"}}]}, [None, Value("a")]),
        ({"as_scalar_type": 6}, torch.float32),
        ({"as_string": "none"}, "none"),
    ],
)
def test_arguments(argument, value):
    assert changed(argument).nodes[0].arguments == (("self", value),)


def test_devices_and_layouts_are_left_out():
    assert changed({"as_device": {"type": "cuda"}}).nodes[0].arguments == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"argument": {"as_graph": {}}}, "kind as_graph"),
        ({"argument": {"as_custom_obj": "x"}}, "kind as_custom_obj"),
        ({"argument": {"as_ints": ["1"]}}, "kind as_ints"),
        ({"argument": {"as_ints": [0] * 2000}}, "kind as_ints"),
        ({"argument": {"as_int": True}}, "kind as_int"),
        ({"argument": {"as_sym_int": {"as_expr": "1"}}}, "neither a number nor a value"),
        ({"argument": {"as_scalar_type": 99}}, "dtype"),
        ({"argument": {}}, "several kinds or none"),
        ({"target": 5}, "no name as target"),
        ({"inputs": None}, "no list"),
        ({"outputs": [{"as_tensor": {}}]}, "lacks name"),
    ],
)
def test_another_form_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        changed(**change)


def test_other_inputs_are_refused():
    held = copy.deepcopy(GRAPH)
    held["graph_module"]["signature"]["input_specs"][0] = {"custom_obj": {}}
    with pytest.raises(ValueError, match="input of the kind custom_obj"):
        read_graph(held)
    with pytest.raises(ValueError, match="lacks graph_module"):
        read_graph({})
