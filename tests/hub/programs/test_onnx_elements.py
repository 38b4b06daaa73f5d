# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from d3fast.hub.programs.onnx_elements import ELEMENTS
from tests.hub.programs.runtime import agree, floats, single
from tests.io.onnx_files import model, node, tensor

ONE = np.float32(0.5)
PLAIN = (
    "Abs Ceil Cos Erf Exp Floor HardSwish Neg Relu Round Selu Sigmoid Sign Sin Softplus Softsign"
)


@pytest.mark.parametrize("op", [*PLAIN.split(), "Tanh", "HardSigmoid"])
def test_a_function_of_one_value_is_that_of_onnx_runtime(tmp_path, op):
    agree(tmp_path, single(op))


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("Celu", {"alpha": 2.0}),
        ("Clip", {"min": -0.5, "max": 0.25, "opset": 6}),
        ("Elu", {"alpha": 0.5}),
        ("Gelu", {"opset": 20}),
        ("Gelu", {"opset": 20, "approximate": "tanh"}),
        ("HardSigmoid", {"alpha": 0.1, "beta": 0.3}),
        ("LeakyRelu", {"alpha": 0.1}),
        ("Mish", {"opset": 18}),
    ],
)
def test_attributes_and_versions_are_those_of_onnx(tmp_path, op, options):
    agree(tmp_path, single(op, **options))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("options", [{}, {"axis": 1}])
@pytest.mark.parametrize("opset", [11, 17])
def test_softmax_is_over_all_further_dimensions_up_to_opset_12(tmp_path, op, options, opset):
    nodes = [node(op, "x", "p", **options), node("Neg", "p", "y")]
    agree(tmp_path, model(nodes, shape=(2, 4, 5, 6), opset=opset))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean", "PRelu"])
def test_values_are_broadcast(tmp_path, op):
    agree(tmp_path, single(op, np.abs(floats(4, 1, 1)) + 0.1))


@pytest.mark.parametrize(("low", "high"), [(-0.5, 0.5), (None, 0.5), (-0.5, None)])
def test_bounds_may_be_left_out(tmp_path, low, high):
    bounds = [np.float32(value) for value in (low, high) if value is not None]
    names = ["-" if low is None else "t0", *(["t0" if low is None else "t1"] * (high is not None))]
    agree(tmp_path, single("Clip", *bounds, inputs=" ".join(["x", *names])))


def test_a_choice_between_values(tmp_path):
    nodes = [node("Greater", "x t", "m"), node("Mul", "x t", "s"), node("Where", "m x s", "y")]
    agree(tmp_path, model(nodes, [tensor("t", ONE)], shape=(2, 4, 5, 6)))


def test_whole_numbers_are_divided_towards_zero(tmp_path):
    given = [tensor("a", np.array([-7, 7])), tensor("b", np.array([2]))]
    nodes = [node("Div", "a b", "q"), node("Cast", "q", "f", to=1), node("ReduceMean", "f", "m")]
    agree(tmp_path, model([*nodes, node("Add", "x m", "y")], given, shape=(2, 4, 5, 6)))


def test_powers_and_logarithms(tmp_path):
    nodes = [node("Mul", "x x", "s"), node("Sqrt", "s", "r"), node("Pow", "r t", "p")]
    nodes += [node("Reciprocal", "p", "i"), node("Log", "i", "y")]
    agree(tmp_path, model(nodes, [tensor("t", ONE)], shape=(2, 4, 5, 6)))


def test_operators_on_elements_have_no_state():
    assert all(callable(operator) for operator in ELEMENTS.values())
