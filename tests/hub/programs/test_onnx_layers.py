# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from d3fast.hub.programs.onnx_layers import padded
from tests.hub.programs.runtime import agree, floats, single
from tests.io.onnx_files import model, node, tensor


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"pads": [1, 1, 1, 1], "strides": [2, 1]},
        {"pads": [0, 1, 1, 2]},
        {"dilations": [2, 1], "pads": [1, 0, 1, 0]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"auto_pad": "VALID"},
    ],
)
def test_convolutions(tmp_path, options):
    agree(tmp_path, single("Conv", floats(3, 4, 3, 2), floats(3), **options))


def test_convolutions_in_groups(tmp_path):
    agree(tmp_path, single("Conv", floats(6, 2, 2, 2), group=2))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "options",
    [
        {"strides": [2, 2]},
        {"pads": [1, 0, 1, 0]},
        {"pads": [0, 1, 1, 0], "strides": [2, 2]},
        {"ceil_mode": 1, "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ],
)
def test_pools(tmp_path, op, options):
    agree(tmp_path, single(op, kernel_shape=[3, 2], **options))


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 1, 1, 0]])
def test_an_average_may_count_the_pads(tmp_path, pads):
    agree(tmp_path, single("AveragePool", kernel_shape=[2, 2], count_include_pad=1, pads=pads))


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_global_pools(tmp_path, op):
    agree(tmp_path, single(op))


def test_norms(tmp_path):
    four = [floats(4, seed=1), floats(4, seed=2), floats(4, seed=3), np.abs(floats(4)) + 0.1]
    agree(tmp_path, single("BatchNormalization", *four, epsilon=0.01))
    agree(tmp_path, single("InstanceNormalization", *four[:2]))
    agree(tmp_path, single("LayerNormalization", floats(6), floats(6, seed=1)))
    agree(tmp_path, single("LayerNormalization", floats(5, 6), axis=-2))
    agree(tmp_path, single("LRN", size=3, alpha=0.1, beta=0.5, bias=1.5))
    agree(tmp_path, single("GroupNormalization", *four[:2], opset=21, num_groups=2))
    agree(
        tmp_path, single("GroupNormalization", *(v[:2] for v in four[:2]), opset=18, num_groups=2)
    )


@pytest.mark.parametrize(
    "options", [{}, {"transB": 1}, {"alpha": 0.5, "beta": 2.0}, {"transB": 1, "alpha": 2.0}]
)
def test_products_of_matrices(tmp_path, options):
    weight = floats(3, 120) if options.get("transB") else floats(120, 3)
    nodes = [node("Flatten", "x", "f"), node("Gemm", "f w b", "y", **options)]
    held = [tensor("w", weight), tensor("b", floats(3))]
    agree(tmp_path, model(nodes, held, shape=(2, 4, 5, 6)))


def test_products_of_stacks_of_matrices(tmp_path):
    agree(tmp_path, single("MatMul", floats(6, 3)))
    agree(tmp_path, single("Einsum", floats(6, 3), equation="ncij,jk->nick"))


def test_pads_are_all_before_and_then_all_behind():
    assert padded(torch.ones(1, 1, 2, 2), [1, 0, 0, 2]).shape == (1, 1, 3, 4)
