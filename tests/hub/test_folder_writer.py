# SPDX-License-Identifier: Apache-2.0
"""The writer of hub folders: the suspect's files, and only what changed is new."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from d3fast.detox import D3Config
from d3fast.hub.folder_writer import FolderWriter
from d3fast.io.hub_files import find_weights
from tests.io.test_hub_files import FIRST, SECOND, sharded


def values(dtype=torch.float32):
    draws = torch.Generator().manual_seed(0)
    drawn = {"b.weight": (3, 2), "a.bias": (3,), "rest": (4,), "count": ()}
    return {name: torch.randn(s, generator=draws).to(dtype) for name, s in drawn.items()}


class Net(nn.Module):
    """A model with two of the tensors of a file."""

    def __init__(self, held):
        super().__init__()
        self.weight = nn.Parameter(held["b.weight"].float().clone())
        self.bias = nn.Parameter(held["a.bias"].float().clone())


NAMES = {"b.weight": "weight", "a.bias": "bias"}


def write(folder, model, config=None):
    target = folder / "audit"
    target.mkdir(exist_ok=True)
    return FolderWriter(find_weights(folder), NAMES)(model, target, config)


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16])
def held(request):
    return values(request.param)


def test_an_unchanged_model_gives_the_same_bytes(tmp_path, held):
    save_file(held, tmp_path / "model.safetensors", {"format": "pt", "theirs": "kept"})
    out = write(tmp_path, Net(held))
    assert out == tmp_path / "audit" / "repaired"
    name = "model.safetensors"
    assert (out / name).read_bytes() == (tmp_path / name).read_bytes()


def test_only_the_tensor_that_changed_is_new_and_has_the_file_s_dtype(tmp_path, held):
    save_file(held, tmp_path / "model.safetensors", {"format": "pt"})
    model = Net(held)
    with torch.no_grad():
        model.weight += 1
    found = load_file(write(tmp_path, model) / "model.safetensors")
    assert torch.equal(found["b.weight"], (held["b.weight"].float() + 1).to(held["rest"].dtype))
    for name in ("a.bias", "rest", "count"):
        assert torch.equal(found[name], held[name])
    assert {v.dtype for v in found.values()} == {held["rest"].dtype}


def test_options_of_the_repair_are_added_to_the_metadata(tmp_path):
    save_file(values(), tmp_path / "model.safetensors", {"format": "pt", "theirs": "kept"})
    out = write(tmp_path, Net(values()), D3Config())
    with safe_open(out / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["theirs"]) == ("pt", "kept")
    assert json.loads(metadata["d3fast.config"])["lr"] == D3Config().lr
    assert all(torch.equal(v, values()[n]) for n, v in load_file(out / "model.safetensors").items())


def test_shards_and_their_index_stay(tmp_path):
    places = sharded(tmp_path, values())
    model = Net(values())
    with torch.no_grad():
        model.bias.zero_()
    out = write(tmp_path, model)
    index = "model.safetensors.index.json"
    assert (out / index).read_bytes() == (tmp_path / index).read_bytes()
    assert sorted(p.name for p in out.iterdir()) == [FIRST, SECOND, index]
    for name, file in places.items():
        changed = name == "a.bias"
        expected = torch.zeros(3) if changed else values()[name]
        assert torch.equal(load_file(out / file)[name], expected)
    assert (out / SECOND).read_bytes() == (tmp_path / SECOND).read_bytes()


def test_pickles_become_safetensors(tmp_path):
    sharded(tmp_path, values(), suffix="bin")
    out = write(tmp_path, Net(values()))
    assert sorted(p.name for p in out.iterdir()) == [FIRST, SECOND, "model.safetensors.index.json"]
    assert torch.equal(load_file(out / SECOND)["rest"], values()["rest"])
    again = find_weights(out)
    assert again.places["rest"] == SECOND


def test_known_files_are_copied_and_code_is_not(tmp_path):
    save_file(values(), tmp_path / "model.safetensors")
    copied = ("config.json", "preprocessor_config.json", "tokenizer.json", "README.md")
    for name in (*copied, "modeling_theirs.py", "training_args.bin", "notes.txt"):
        (tmp_path / name).write_text(name)
    out = write(tmp_path, Net(values()))
    assert sorted(p.name for p in out.iterdir()) == sorted((*copied, "model.safetensors"))
    assert (out / "README.md").read_text() == "README.md"


def test_an_older_folder_is_replaced(tmp_path):
    save_file(values(), tmp_path / "model.safetensors")
    out = write(tmp_path, Net(values()))
    (out / "old").touch()
    assert [p.name for p in write(tmp_path, Net(values())).iterdir()] == ["model.safetensors"]
    assert [p.name for p in (tmp_path / "audit").iterdir()] == ["repaired"]


def test_a_failure_leaves_the_older_folder(tmp_path):
    save_file(values(torch.float16), tmp_path / "model.safetensors")
    out = write(tmp_path, Net(values()))
    model = Net(values())
    with torch.no_grad():
        model.weight.fill_(1e6)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"'b.weight' holds values that torch.float16"):
        write(tmp_path, model)
    assert (out / "model.safetensors").read_bytes() == before
    assert [p.name for p in (tmp_path / "audit").iterdir()] == ["repaired"]


def test_a_file_in_the_way_is_refused(tmp_path):
    save_file(values(), tmp_path / "model.safetensors")
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "repaired").touch()
    with pytest.raises(ValueError, match="a file is in the way"):
        write(tmp_path, Net(values()))
