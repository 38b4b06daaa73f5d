# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from d3fast.hub.programs.onnx_shapes import computed_dtype
from tests.hub.programs.runtime import SHAPE, agree, floats, ints, single
from tests.io.onnx_files import model, node, tensor


@pytest.mark.parametrize(
    ("op", "tensors", "options"),
    [
        ("Reshape", [ints(0, -1, 6)], {}),
        ("Transpose", [], {"perm": [0, 2, 3, 1]}),
        ("Flatten", [], {"axis": -2}),
        ("Unsqueeze", [ints(1, -1)], {}),
        ("Unsqueeze", [], {"axes": [1], "opset": 11}),
        ("Slice", [ints(1, -1), ints(100, 0), ints(1, -1), ints(1, -2)], {}),
        ("Slice", [], {"starts": [1], "ends": [-1], "axes": [2], "opset": 9}),
        ("Gather", [ints(-1, 0)], {"axis": 2}),
        ("Gather", [np.int64(1)], {"axis": 1}),
        ("Expand", [ints(2, 4, 5, 6)], {}),
        ("Tile", [ints(1, 2, 1, 3)], {}),
        ("Pad", [ints(0, 0, 1, 0, 0, 0, 2, 1)], {}),
        ("Pad", [ints(0, 0, 1, 0, 0, 0, 2, 1)], {"mode": "reflect"}),
        ("Pad", [ints(0, 0, 1, 0, 0, 0, 2, 1)], {"mode": "edge"}),
        ("DepthToSpace", [], {"blocksize": 2}),
        ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}),
        ("Concat", [floats(2, 1, 5, 6)], {"axis": 1}),
        ("ReduceMean", [], {"axes": [2, 3]}),
        ("ReduceMean", [ints(-1)], {"opset": 18, "keepdims": 0}),
        ("ReduceSum", [ints(1)], {}),
        ("ReduceMax", [], {"axes": [1]}),
        ("ReduceMin", [], {"axes": [1]}),
        ("ReduceL1", [], {"axes": [1]}),
        ("ReduceL2", [], {"axes": [1]}),
        ("ReduceSumSquare", [], {"axes": [1]}),
        ("ReduceProd", [], {"axes": [1, 2]}),
        ("Identity", [], {}),
    ],
)
def test_an_operator_gives_what_onnx_runtime_gives(tmp_path, op, tensors, options):
    agree(tmp_path, single(op, *tensors, **options))


@pytest.mark.parametrize(
    ("mode", "where"),
    [
        ("nearest", "asymmetric"),
        ("linear", "half_pixel"),
        ("linear", "align_corners"),
        ("cubic", "half_pixel"),
    ],
)
def test_images_are_resized(tmp_path, mode, where):
    more = {"nearest_mode": "floor"} if mode == "nearest" else {}
    scales = np.array([1, 1, 2, 2], "float32")
    options = {"mode": mode, "coordinate_transformation_mode": where, "inputs": "x - t0"}
    agree(tmp_path, single("Resize", scales, **options, cubic_coeff_a=-0.75, **more))


def test_shapes_are_computed_from_the_input(tmp_path):
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Unsqueeze", "n axes", "u"),
        node("Concat", "u rest", "wanted", axis=0),
        node("Reshape", "x wanted", "y"),
    ]
    held = [tensor("zero", np.int64(0)), tensor("axes", ints(0)), tensor("rest", ints(2, -1))]
    agree(tmp_path, model(nodes, held, shape=SHAPE))


def test_values_are_split_and_squeezed(tmp_path):
    nodes = [node("Split", "x t", "a b", axis=1), node("Squeeze", "a s", "q")]
    nodes += [node("ReduceMean", "b", "m", axes=[1], keepdims=0), node("Add", "q m", "y")]
    held = [tensor("t", ints(1, 3)), tensor("s", ints(1))]
    agree(tmp_path, model(nodes, held, shape=SHAPE))


def test_ranges_and_constants_by_shape(tmp_path):
    nodes = [
        node("ConstantOfShape", "size", "ones", value=tensor("v", np.ones(1, "float32"))),
        node("Range", "zero six one", "count"),
        node("Cast", "count", "floats", to=1),
        node("Mul", "floats ones", "product"),
        node("Add", "x product", "y"),
    ]
    numbers = {"zero": np.int64(0), "six": np.int64(6), "one": np.int64(1), "size": ints(5, 6)}
    agree(tmp_path, model(nodes, [tensor(*item) for item in numbers.items()], shape=SHAPE))


def test_every_float_is_computed_as_float32():
    assert computed_dtype(torch.float16) == computed_dtype(torch.float64) == torch.float32
    assert computed_dtype(torch.int64) == torch.int64
