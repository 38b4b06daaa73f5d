# SPDX-License-Identifier: Apache-2.0
"""Tensors of an exported archive come back bit by bit; its program is plain JSON."""

import io
import json
import warnings
import zipfile

import pytest
import torch
from torch import nn

from d3fast.io.entries import OtherEntry
from d3fast.io.exported_file import read_exported, read_program


class Model(nn.Module):
    """Tied weights, a view with odd strides, a bool and integers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.b.weight = self.a.weight
        self.register_buffer("view", torch.arange(12.0).reshape(3, 4).T[:, :2])
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("count", torch.tensor(3))
        self.low = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))

    def forward(self, x):
        return self.b(self.a(x)) + self.view.sum() + self.mask * self.count + self.low.float()


@pytest.fixture(scope="module")
def archive():
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(Model().eval(), (torch.zeros(2, 2),)), buffer)
    return buffer.getvalue()


def changed(archive, change):
    """The archive with another description of its weights."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("model_weights_config.json"):
                held = json.loads(content)
                change(held["config"])
                content = json.dumps(held).encode()
            new.writestr(name, content)
    return buffer


def test_every_tensor_of_the_state_comes_back(archive):
    held, state = read_exported(io.BytesIO(archive)), Model().state_dict()
    assert held.keys() == state.keys()
    for name, value in state.items():
        assert (held[name].shape, held[name].dtype) == (value.shape, value.dtype)
        assert torch.equal(held[name].read(), value), name


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["a.bias"].update(use_pickle=True),
        lambda c: c["a.bias"].update(tensor_meta=None),
        lambda c: c["a.bias"]["tensor_meta"].update(dtype=99),
        lambda c: c["a.bias"]["tensor_meta"].update(layout=1),
    ],
)
def test_other_tensors_cannot_be_weights(archive, change):
    held = read_exported(changed(archive, change))
    assert isinstance(held["a.bias"], OtherEntry)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m: m.update(sizes=[{"as_int": -1}]), "impossible sizes"),
        (lambda m: m.update(sizes=[{"as_int": True}]), "impossible sizes"),
        (lambda m: m.update(sizes=[{"as_expr": {"expr_str": "1+1"}}]), "impossible sizes"),
        (lambda m: m.update(sizes=[{"as_int": 1}] * 65), "impossible sizes"),
        (lambda m: m.update(strides=[]), "impossible sizes"),
        (lambda m: m.update(storage_offset={"as_int": 2**63}), "impossible sizes"),
    ],
)
def test_impossible_sizes_are_refused(archive, change, says):
    with pytest.raises(ValueError, match=says):
        read_exported(changed(archive, lambda c: change(c["a.bias"]["tensor_meta"])))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t["tensor_meta"].update(sizes=[{"as_int": 2**40}]), "needs"),
        (lambda t: t["tensor_meta"].update(storage_offset={"as_int": 2}), "needs 16 bytes"),
        (lambda t: t.update(path_name="../../models/model.json"), "is missing"),
    ],
)
def test_a_tensor_that_is_not_there_cannot_be_read(archive, change, says):
    held = read_exported(changed(archive, lambda c: change(c["a.bias"])))
    with pytest.raises(ValueError, match=says):
        held["a.bias"].read()


def test_an_archive_without_weights_is_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/models/model.json", "{}")
    with pytest.raises(ValueError, match="holds no record data/weights"):
        read_exported(buffer)


def test_the_graph_is_read_as_json_beside_the_weights(archive):
    found = read_program(io.BytesIO(archive))
    assert found.graph.keys() >= {"graph_module", "schema_version"}
    assert found.weights.keys() == read_exported(io.BytesIO(archive)).keys()


def test_an_archive_without_a_graph_has_none(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as given:
        held = {n: given.read(n) for n in given.namelist() if not n.endswith("models/model.json")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as taken:
        for name, content in held.items():
            taken.writestr(name, content)
    with pytest.raises(ValueError, match=r"no record models/model\.json"):
        read_program(buffer)
