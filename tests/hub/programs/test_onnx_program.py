# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from torch import nn

from d3fast.optim.heads import find_head
from tests.hub.programs.runtime import agree, built, floats
from tests.io.onnx_files import classifier, model, node, tensor, weights

SHAPE = (2, 1, 4, 4)
FLAT = node("Flatten", "x", "f")


def names(folder, content):
    program = built(folder, content, SHAPE).program
    return [name for name, _ in program.named_parameters()], program


def test_layers_are_modules_under_the_names_of_their_weights(tmp_path):
    found, program = names(tmp_path, classifier())
    assert found == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
    assert isinstance(program.conv, nn.Conv2d)
    assert find_head(program) == ("fc", program.fc)
    agree(tmp_path, classifier(), SHAPE)


def test_a_head_without_a_name_is_called_head(tmp_path):
    nodes = [FLAT, node("MatMul", "f w", "m"), node("Add", "m b", "y")]
    content = model(nodes, [tensor("w", floats(16, 3)), tensor("b", floats(3))], shape=SHAPE)
    found, program = names(tmp_path, content)
    assert sorted(found) == ["b", "head.weight"]
    assert program.head.weight.shape == (3, 16)
    agree(tmp_path, content, SHAPE)


@pytest.mark.parametrize("by", ["Transpose", "Identity"])
def test_a_head_behind_a_copy_of_its_weight_is_a_layer(tmp_path, by):
    weight = floats(3, 16) if by == "Transpose" else floats(16, 3)
    nodes = [node(by, "w", "t"), FLAT, node("MatMul", "f t", "y")]
    content = model(nodes, [tensor("w", weight)], shape=SHAPE)
    assert names(tmp_path, content)[0] == ["head.weight"]
    agree(tmp_path, content, SHAPE)


def test_constants_of_nodes_are_tensors_too(tmp_path):
    nodes = [
        node("Constant", "", "w", value=tensor("w", floats(16, 3))),
        node("Constant", "", "half", value_float=0.5),
        FLAT,
        node("MatMul", "f w", "m"),
        node("Mul", "m half", "y"),
    ]
    assert names(tmp_path, model(nodes, shape=SHAPE))[0] == ["head.weight"]
    agree(tmp_path, model(nodes, shape=SHAPE), SHAPE)


def test_a_normalisation_in_front_of_the_layers_does_not_train(tmp_path):
    nodes = [node("Sub", "x mean", "c"), node("Flatten", "c", "f"), node("MatMul", "f w", "y")]
    held = [tensor("mean", floats(1, 1, 4, 4)), tensor("w", floats(16, 3))]
    assert names(tmp_path, model(nodes, held, shape=SHAPE))[0] == ["head.weight"]


def test_layers_share_a_weight_of_the_file(tmp_path):
    nodes = [FLAT, node("MatMul", "f w", "a"), node("MatMul", "a w", "y")]
    found, program = names(tmp_path, model(nodes, [tensor("w", floats(16, 16))], shape=SHAPE))
    assert len(found) == 1
    (first, second) = [m for m in program.modules() if isinstance(m, nn.Linear)]
    assert first.weight is second.weight


def test_a_weight_in_two_orientations_is_refused(tmp_path):
    nodes = [FLAT, node("MatMul", "f w", "a"), node("Gemm", "a w", "y", transB=1)]
    with pytest.raises(ValueError, match="two orientations"):
        names(tmp_path, model(nodes, [tensor("w", floats(16, 16))], shape=SHAPE))


@pytest.mark.parametrize("opset", [11, 17])
def test_a_softmax_at_the_end_is_left_out(tmp_path, opset):
    nodes = [
        FLAT,
        node("MatMul", "f w", "m"),
        node("Softmax", "m", "p"),
        node("Identity", "p", "y"),
    ]
    content = model(nodes, [tensor("w", floats(16, 3))], shape=SHAPE, opset=opset)
    found = built(tmp_path, content, SHAPE)
    assert found.softmax
    assert found.program.result == "m"


def test_nodes_that_no_score_needs_are_left_out(tmp_path):
    content = classifier(None, None, node("TopK", "c", "v i"))
    assert "TopK" not in {each.op for each in built(tmp_path, content, SHAPE).nodes}


def test_halves_are_computed_in_float32(tmp_path):
    given = {name: value.astype("float16") for name, value in weights().items()}
    program = built(tmp_path, classifier(given=given), SHAPE).program
    assert str(program.fc.weight.dtype) == "torch.float32"


def test_batch_norm_trains_as_in_torch(tmp_path):
    four = {f"bn.{name}": np.abs(floats(1)) + 1 for name in ("weight", "bias", "mean", "var")}
    nodes = [node("BatchNormalization", f"x {' '.join(four)}", "n"), node("Flatten", "n", "y")]
    content = model(nodes, [tensor(*each) for each in four.items()], shape=SHAPE)
    found, program = names(tmp_path, content)
    assert found == ["bn.weight", "bn.bias"]
    assert isinstance(program.bn, nn.BatchNorm2d)
    agree(tmp_path, content, SHAPE)
