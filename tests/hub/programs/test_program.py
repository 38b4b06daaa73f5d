# SPDX-License-Identifier: Apache-2.0
import copy
import pickle

import pytest
import torch
from torch import nn

from d3fast.hub.programs.input_form import InputForm
from d3fast.hub.programs.onnx_operators import OnnxStep
from d3fast.hub.programs.program import LayerStep, Program
from d3fast.io.onnx_file import Node


def step(op, inputs, outputs):
    return OnnxStep(Node(op, "", tuple(inputs.split()), tuple(outputs.split()), {}), 17)


def program(batch=None, **layers):
    made = Program("x", "y", InputForm(1, (2, 2), batch=batch))
    path = made.add_layer("block.fc", nn.Linear(4, 3))
    made.set_steps([step("Flatten", "x", "f"), LayerStep(path, ("f",), ("y",))])
    return made


def test_layers_have_the_names_of_the_file():
    assert [name for name, _ in program().named_parameters()] == [
        "block.fc.weight",
        "block.fc.bias",
    ]


@pytest.mark.parametrize("name", ["forward", "", "a b", "a..b", "x" * 300, "block.forward", "é"])
def test_a_name_that_would_hide_something_is_replaced(name):
    made = program()
    path = made.add_layer(name, nn.Linear(1, 1))
    assert isinstance(made.get_submodule(path), nn.Linear)
    assert callable(made.forward)
    assert path != name


def test_scores_have_gradients():
    made = program()
    images = torch.rand(2, 1, 2, 2, requires_grad=True)
    made(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_a_fixed_batch_is_filled_up():
    whole, parts = program(), program(batch=2)
    parts.load_state_dict(whole.state_dict())
    images = torch.rand(5, 1, 2, 2)
    torch.testing.assert_close(parts(images), whole(images))


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("Relu", "z", "y")], "'z' is read before"),
        ([("Relu", "x", "y"), ("Relu", "x", "y")], "'y' is made twice"),
        ([("Relu", "x", "z")], "output 'y' is not made"),
    ],
)
def test_a_graph_that_is_none_is_refused(steps, message):
    made = Program("x", "y", InputForm(1, (2, 2)))
    with pytest.raises(ValueError, match=message):
        made.set_steps([step(*each) for each in steps])


def test_a_program_can_be_copied_and_sent_to_another_process():
    made, images = program(), torch.rand(2, 1, 2, 2)
    for other in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        torch.testing.assert_close(other(images), made(images))
