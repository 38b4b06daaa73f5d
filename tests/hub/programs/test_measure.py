# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from d3fast.hub.programs.input_form import InputForm
from d3fast.hub.programs.measure import measure
from d3fast.hub.programs.onnx_program import Builder
from d3fast.io.onnx_file import read_onnx
from tests.hub.programs.runtime import floats, ints
from tests.io.onnx_files import classifier, model, node, tensor

HEAD = [node("Flatten", "z", "f"), node("MatMul", "f w", "y")]


def cost(folder, content):
    path = folder / "m.onnx"
    path.write_bytes(content)
    return measure(Builder(read_onnx(path), "y", InputForm(1, (4, 4))).program)


def test_the_cost_is_that_of_one_image(tmp_path):
    found = cost(tmp_path, classifier())
    assert found.classes == 3
    assert found.flops == 2 * (2 * 16 * 9 + 32 * 3)
    assert found.nbytes == 4 * (32 * 3 + 3)  # convolution, relu, flatten, scores


@pytest.mark.parametrize(
    ("nodes", "held", "message"),
    [
        ([node("Tile", "x t", "y")], [tensor("t", ints(1, 2**40, 1, 1))], "a value of"),
        ([node("Expand", "x t", "y")], [tensor("t", ints(1, 2**30, 4, 4))], "a value of"),
        (
            [node("ConstantOfShape", "t", "c"), node("Add", "x c", "y")],
            [tensor("t", ints(2**31, 4))],
            "a value of",
        ),
        (
            [node("Range", "a b c", "r"), node("Reshape", "x r", "y")],
            [tensor("a", np.int64(0)), tensor("b", np.int64(2**50)), tensor("c", np.int64(1))],
            "a value of",
        ),
        ([node("Pad", "x t", "y")], [tensor("t", ints(0, 0, 2**20, 2**20, 0, 0, 0, 0))], "a value"),
        (
            [node("Reshape", "x x", "y")],
            [],
            "depends on the pixels",
        ),
        ([node("Cast", "x", "i", to=7), node("Gather", "x i", "y")], [], "no gradient"),
        ([node("Relu", "x", "y")], [], "no row of scores"),
        ([node("MatMul", "x w", "y")], [tensor("w", floats(7, 3))], "does not run"),
        ([node("Gather", "x t", "y")], [tensor("t", ints(9))], "picks outside"),
    ],
)
def test_a_graph_that_asks_for_too_much_is_refused_before_it_runs(tmp_path, nodes, held, message):
    with pytest.raises(ValueError, match=message):
        cost(tmp_path, model(nodes, held))


def test_the_operations_of_many_layers_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("d3fast.hub.programs.measure.MAX_FLOPS", 100)
    with pytest.raises(ValueError, match="operations per image"):
        cost(tmp_path, classifier())


def test_the_values_of_many_steps_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("d3fast.hub.programs.measure.MAX_VALUES", 200)
    with pytest.raises(ValueError, match="its values are more"):
        cost(tmp_path, classifier())
