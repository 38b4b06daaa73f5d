# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from d3fast.hub.programs.onnx_operators import OPERATORS, OnnxStep, check_operators
from d3fast.io.onnx_file import Node


def of(op, domain=""):
    return Node(op, domain, ("x",), ("y",), {})


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (of("Any", "com.example"), "com.example::Any: only operators of ONNX itself"),
        (of("Loop"), "Loop: graphs with loops"),
        (of("QuantizeLinear"), "before quantisation"),
        (of("TopK"), r"TopK: docs/model-names\.md"),
        (of("a\nb" * 500), r"a\\nb"),
    ],
)
def test_an_operator_that_is_not_computed_is_refused_with_the_reason(node, message):
    with pytest.raises(ValueError, match=message):
        check_operators([of("Relu"), node])


def test_a_step_reads_and_makes_values():
    step = OnnxStep(of("Relu"), 17)
    (made,) = step(None, {"x": torch.tensor([-1.0, 1.0])})
    assert made.tolist() == [0, 1]
    assert (step.inputs, step.outputs) == (("x",), ("y",))


def test_every_operator_of_an_image_classifier_is_there():
    assert {"Conv", "Gemm", "Reshape", "Relu", "LayerNormalization"} <= OPERATORS.keys()
