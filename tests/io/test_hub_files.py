"""Hub folders of strangers: their JSON and their weights, one file or shards."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from d3fast.io.hub_files import (
    code_files,
    find_weights,
    folder_file,
    load_weight_files,
    open_weight_files,
    read_folder_json,
)

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def net():
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def tensors(net_):
    return {name: value.clone() for name, value in net_.state_dict().items()}


def sharded(folder, values, places=None, suffix="safetensors"):
    """Write the first half of the tensors in one shard and the rest in another."""
    pickled = suffix == "bin"
    files = [n.replace("model", "pytorch_model") for n in (FIRST, SECOND)] if pickled else []
    files = [f.replace("safetensors", suffix) for f in files] or [FIRST, SECOND]
    names, half = list(values), len(values) // 2
    for file, part in zip(files, (names[:half], names[half:]), strict=True):
        content = {name: values[name] for name in part}
        (torch.save if pickled else save_file)(content, folder / file)
    places = places or {n: files[0] if n in names[:half] else files[1] for n in names}
    index = "pytorch_model.bin.index.json" if pickled else "model.safetensors.index.json"
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return places


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_fill_a_model(tmp_path, suffix):
    source, model = net(), net()
    sharded(tmp_path, tensors(source), suffix=suffix)
    found = find_weights(tmp_path)
    assert (len(found.files), found.pickled) == (2, suffix == "bin")
    names, unused = load_weight_files(model, found)
    assert (names, unused) == ({n: n for n in tensors(source)}, ())
    for name, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[name])


@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_a_single_file_fills_a_model(tmp_path, file):
    source, model = net(), net()
    save = save_file if file.endswith("safetensors") else torch.save
    save(tensors(source), tmp_path / file)
    load_weight_files(model, find_weights(tmp_path))
    assert torch.equal(model[0].weight, source[0].weight)


def test_safetensors_come_before_pickles(tmp_path):
    save_file(tensors(net()), tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"never opened")
    assert not find_weights(tmp_path).pickled


def test_names_are_translated_and_other_tensors_left_alone(tmp_path):
    source, model = net(), net()
    held = {f"old.{n}": v for n, v in tensors(source).items()} | {"pooler": torch.ones(9)}
    save_file(held, tmp_path / "model.safetensors")
    names, unused = load_weight_files(
        model, find_weights(tmp_path), lambda name: name.removeprefix("old.")
    )
    assert (names["old.0.weight"], unused) == ("0.weight", ("pooler",))
    assert torch.equal(model[0].weight, source[0].weight)


def test_two_tensors_of_one_name_are_refused(tmp_path):
    held = tensors(net()) | {"old.0.bias": torch.zeros(3)}
    save_file(held, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="two of its tensors are one"):
        load_weight_files(net(), find_weights(tmp_path), lambda name: name.removeprefix("old."))


@pytest.mark.parametrize("change", [{"1.bias": None}, {"1.bias": torch.tensor([torch.nan])}])
def test_a_model_keeps_its_weights_where_the_shards_do_not_fit(tmp_path, change):
    model = net()
    before = tensors(model)
    held = {n: v for n, v in (tensors(net()) | change).items() if v is not None}
    sharded(tmp_path, held)
    with pytest.raises(ValueError, match=r"index\.json"):
        load_weight_files(model, find_weights(tmp_path))
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


@pytest.mark.parametrize(
    "name", ["../out.safetensors", "/etc/passwd", "a/b.safetensors", ".hidden.safetensors", ""]
)
def test_an_index_names_files_of_its_folder_only(tmp_path, name):
    values = tensors(net())
    sharded(tmp_path, values, places=dict.fromkeys(values, name))
    with pytest.raises(ValueError, match="not a plain name"):
        find_weights(tmp_path)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({}, "no weight_map"),
        ([], "no weight_map"),
        ({"a": 3}, "must name a file for each tensor"),
        ({"a": "pytorch_model.bin"}, "not a .safetensors file"),
        ({"a": "absent.safetensors"}, "is missing"),
        ({str(n): f"{n}.safetensors" for n in range(201)}, "names 201 files"),
    ],
)
def test_an_index_that_makes_no_sense_is_refused(tmp_path, places, message):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    with pytest.raises(ValueError, match=message):
        find_weights(tmp_path)


def test_a_shard_that_is_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    sharded(folder, tensors(net()))
    (folder / SECOND).rename(tmp_path / SECOND)
    (folder / SECOND).symlink_to(tmp_path / SECOND)
    with pytest.raises(ValueError, match="leads out of"):
        find_weights(folder)


def test_a_snapshot_of_the_hub_s_cache_may_link_to_its_blobs_alone(tmp_path):
    snapshot = tmp_path / "models--org--name/snapshots/0123"
    blobs = tmp_path / "models--org--name/blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    (blobs / "abcd").write_text("{}")
    (snapshot / "config.json").symlink_to("../../blobs/abcd")
    (snapshot / "other.json").symlink_to("../../../outside")
    assert read_folder_json(snapshot, "config.json") == {}
    with pytest.raises(ValueError, match="leads out of"):
        folder_file(snapshot, "other.json")


@pytest.mark.parametrize("moved", ["another", "nowhere"])
def test_a_tensor_that_is_not_where_the_index_says_is_refused(tmp_path, moved):
    values = tensors(net())
    places = sharded(tmp_path, values)
    del places["0.weight"]
    if moved == "another":
        places["0.weight"] = SECOND
    index = {"weight_map": places}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with (
        pytest.raises(ValueError, match=r"does not fit the index: '0\.weight'"),
        open_weight_files(find_weights(tmp_path)),
    ):
        pass


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "pytorch_lora.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds no model\.safetensors or pytorch_model\.bin"):
        find_weights(tmp_path)


def test_a_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ValueError, match="not a regular file"):
        read_folder_json(tmp_path, "config.json")


def test_code_is_listed_and_not_opened(tmp_path):
    for name in ("modeling_theirs.py", "optimizer.pkl", "config.json", "README.md"):
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.py")
    assert code_files(tmp_path) == ("modeling_theirs.py", "optimizer.pkl", "pipe.py")
