# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from d3fast.io.onnx_file import read_onnx
from tests.io.onnx_files import UINT8, classifier, field, model, node, tensor, weights


def read(folder, content):
    path = folder / "m.onnx"
    path.write_bytes(content)
    return read_onnx(path)


def test_the_graph_is_plain_data(tmp_path):
    found = read(tmp_path, classifier(batch=2))
    assert found.opset == 17
    assert [each.op for each in found.nodes] == ["Conv", "Relu", "Flatten", "Gemm"]
    assert found.nodes[0].attributes == {"pads": [1, 1, 1, 1]}
    assert found.nodes[3].inputs == ("f", "fc.weight", "fc.bias")
    assert found.inputs[0].shape == (2, 1, 4, 4)
    assert found.outputs == ("y",)
    for name, value in weights().items():
        assert torch.equal(found.tensors[name].read(), torch.from_numpy(value))


def test_free_sizes_and_bytes_are_declared(tmp_path):
    found = read(tmp_path, model([node("Identity", "x", "y")], shape=(None, 8), kind=UINT8))
    assert (found.inputs[0].shape, found.inputs[0].dtype) == ((None, 8), torch.uint8)


def test_attributes_have_their_types_and_zero_is_a_value(tmp_path):
    given = {
        "a": 0,
        "b": 1.5,
        "c": "text",
        "d": [1.0, 2.0],
        "e": tensor("t", np.ones(1, "float32")),
    }
    (found,) = read(tmp_path, model([node("Any", "x", "y", **given)])).nodes
    assert {name: found.attributes[name] for name in "abcd"} == {n: given[n] for n in "abcd"}
    assert found.attributes["e"].read().tolist() == [1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "damaged or no ONNX file"),
        (field(1, 8), "0 graphs"),
        (classifier() + field(7, b""), "2 graphs"),
        (model([], [tensor("w", np.ones(1, "float32"))] * 2), "'w' twice"),
        (model([node("Identity", "x", "y")] * 20_001), "20000 nodes"),
        (model([], more=field(15, b"")), "sparse"),
        (model([], more=field(1, 3)), "number where a message"),
    ],
)
def test_a_damaged_or_odd_file_is_one_line_with_its_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"m\.onnx.*{message}"):
        read(tmp_path, content)
