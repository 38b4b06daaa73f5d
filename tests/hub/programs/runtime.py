# SPDX-License-Identifier: Apache-2.0
"""Operators as d3fast computes them beside ONNX Runtime, which the package does not use."""

import numpy as np
import pytest
import torch

from d3fast.hub.programs.input_form import InputForm
from d3fast.hub.programs.onnx_program import Builder
from d3fast.io.onnx_file import read_onnx
from tests.io.onnx_files import model, node, tensor

SHAPE = (2, 4, 5, 6)


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def built(folder, content, shape=SHAPE):
    """A program with its weights, of the file's first output."""
    path = folder / "m.onnx"
    path.write_bytes(content)
    file = read_onnx(path)
    found = Builder(file, file.outputs[0], InputForm(shape[1], shape[2:]))
    found.fill()
    return found


def agree(folder, content, shape=SHAPE):
    """Compare the first output on random inputs."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    images = floats(*shape, seed=1)
    expected = runtime.InferenceSession(content).run(None, {"x": images})[0]
    with torch.no_grad():
        found = built(folder, content, shape).program.eval().run(torch.from_numpy(images))
    wanted = torch.from_numpy(np.asarray(expected, "float32"))
    found = found.reshape(wanted.shape) if wanted.shape[2:] == (1, 1) else found
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def single(op, *tensors, opset=17, inputs=None, **attributes):
    """A file of one operator on the images and a few tensors."""
    names = [f"t{at}" for at in range(len(tensors))]
    held = [tensor(name, value) for name, value in zip(names, tensors, strict=True)]
    given = inputs or " ".join(["x", *names])
    return model([node(op, given, "y", **attributes)], held, shape=SHAPE, opset=opset)


def ints(*values):
    return np.array(values, "int64")
