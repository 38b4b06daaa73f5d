"""Safetensors files: the header, its limits, and tensors that are read one by one."""

import io
import json

import pytest
import torch
from safetensors.torch import save_file

from d3fast.io.entries import OtherEntry, TensorEntry
from d3fast.io.safetensors_file import open_safetensors, read_header


def stored(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + data


def test_a_file_is_listed_and_its_tensors_are_read_inside_the_block(tmp_path):
    path = tmp_path / "a.weights"
    save_file({"x": torch.arange(6).reshape(2, 3)}, path, {"format": "mine"})
    with open_safetensors(path) as (metadata, entries):
        assert metadata == {"format": "mine"}
        (name, entry), *others = entries.items()
        assert (name, entry.shape, entry.dtype, others) == ("x", (2, 3), torch.int64, [])
        assert torch.equal(entry.read(), torch.arange(6).reshape(2, 3))


def test_a_file_without_metadata_has_none(tmp_path):
    save_file({}, tmp_path / "a")
    with open_safetensors(tmp_path / "a") as (metadata, entries):
        assert (metadata, entries) == ({}, {})


@pytest.mark.parametrize(("dtype", "kind"), [("F4", OtherEntry), ("F16", TensorEntry)])
def test_dtypes_that_torch_cannot_compute_with_are_no_tensors(tmp_path, dtype, kind):
    size = {"F4": 4, "F16": 16}[dtype]
    header = {"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, size]}}
    (tmp_path / "a").write_bytes(stored(header, bytes(size)))
    with open_safetensors(tmp_path / "a") as (_, entries):
        assert isinstance(entries["a"], kind)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "claims 0 bytes"),
        (stored(b"{}", length=2**23 + 1), f"claims {2**23 + 1} bytes, more than {2**23}"),
        (stored(b"{}", length=3), "claims 3 bytes, 2 are there"),
        (stored([1]), "not a JSON object"),
        (stored(b'{"a": 1, "a": 2}'), "a name twice"),
        (stored(b'{"a":' * 10**5), "nested too deeply"),
    ],
)
def test_a_bad_header_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        read_header(io.BytesIO(content))


def test_offsets_past_the_end_are_a_value_error(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    (tmp_path / "a").write_bytes(stored(header, bytes(4)))
    with pytest.raises(ValueError, match="header"), open_safetensors(tmp_path / "a"):
        pass
