# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from d3fast.io.onnx_file import read_onnx
from tests.io.onnx_files import field, model, node, tensor, varint


def held(folder, content):
    path = folder / "m.onnx"
    path.write_bytes(model([node("Identity", "x", "y")], [content]))
    return read_onnx(path).tensors["w"]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool"])
def test_raw_bytes_keep_their_dtype(tmp_path, dtype):
    value = np.arange(6).reshape(2, 3).astype(dtype)
    found = held(tmp_path, tensor("w", value)).read()
    assert torch.equal(found, torch.from_numpy(value))


def test_values_that_are_stored_one_by_one_are_read(tmp_path):
    wanted = np.array([-1, 2**40], "int64")
    found = held(tmp_path, tensor("w", wanted, field(7, varint(-1) + varint(2**40)), raw=False))
    assert found.read().tolist() == [-1, 2**40]
    halves = held(
        tmp_path, tensor("w", np.zeros(1, "float16"), field(5, varint(0x3C00)), raw=False)
    )
    assert halves.read().tolist() == [1.0]


def outside(location, **more):
    entries = {"location": location, **more}
    parts = [field(13, field(1, key) + field(2, text)) for key, text in entries.items()]
    return tensor("w", np.zeros(2, "float32"), *parts, field(14, 1), raw=False)


def test_a_tensor_may_lie_in_a_file_beside(tmp_path):
    (tmp_path / "m.data").write_bytes(b"1234" + np.array([3, 4], "float32").tobytes())
    assert held(tmp_path, outside("m.data", offset="4", length="8")).read().tolist() == [3, 4]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (outside("../m.data"), "no relative path"),
        (outside("/etc/hostname"), "no relative path"),
        (outside("missing"), "is missing"),
        (outside("m.onnx", offset="100000"), "ends at byte"),
        (outside("m.onnx", offset="-1"), "no position"),
        (tensor("w", np.zeros(2, "float32"), field(1, 2**39)), "needs .* bytes, the file has 8"),
        (tensor("w", np.zeros(2, "float32"), field(4, b"1234")), "in two ways"),
        (field(1, 2) + field(2, 8) + field(8, "w") + field(6, "text"), "dtype that is not read"),
    ],
)
def test_a_tensor_that_is_not_where_the_file_says_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        held(tmp_path, content)


def test_nan_is_refused_when_it_is_read(tmp_path):
    found = held(tmp_path, tensor("w", np.array([np.nan], "float32")))
    with pytest.raises(ValueError, match="'w' holds NaN"):
        found.read()
