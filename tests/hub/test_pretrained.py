# SPDX-License-Identifier: Apache-2.0
"""Models built from a stranger's configuration: bounded, without code, filled with all weights."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from d3fast.hub.folders import HubFolder, find_folder
from d3fast.hub.pretrained import class_names, load_pretrained
from tests.hub.makers import edit, from_pretrained, tiny, write_folder

AUTO = "AutoModelForImageClassification"


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "theirs", "resnet")


def load(folder):
    return load_pretrained(find_folder(str(folder)), AUTO)


def rewrite(folder, change):
    path = folder / "model.safetensors"
    held = change(load_file(path))
    save_file({n: v.contiguous() for n, v in held.items()}, path, {"format": "pt"})


def test_a_folder_becomes_a_model(folder):
    loaded = load(folder)
    assert type(loaded.model).__name__ == "ResNetForImageClassification"
    assert not loaded.model.training
    assert loaded.notes == ()
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert loaded.sha256 == digest


def test_names_of_older_files_are_translated_and_written_back(tmp_path):
    folder = write_folder(tmp_path / "a", "vit")
    new = tiny("vit").state_dict()

    def older(held):
        renames = (
            ("vit.layers.", "vit.encoder.layer."),
            ("q_proj", "attention.query"),
            ("k_proj", "attention.key"),
            ("v_proj", "attention.value"),
            ("attention.o_proj", "attention.output.dense"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        )
        for new_name, old_name in renames:
            held = {name.replace(new_name, old_name): value for name, value in held.items()}
        return held

    rewrite(folder, older)
    old_names = load_file(folder / "model.safetensors").keys()
    assert "vit.encoder.layer.0.attention.attention.query.weight" in old_names
    loaded = load(folder)
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, new[name])
    out = loaded.save(loaded.model, tmp_path)
    assert load_file(out / "model.safetensors").keys() == old_names
    for name, value in from_pretrained(out).state_dict().items():
        assert torch.equal(value, new[name])


def test_shards_are_read_and_hashed_together(tmp_path):
    folder = write_folder(tmp_path / "a", "vit", save={"max_shard_size": "8KB"})
    loaded = load(folder)
    files = sorted(folder.glob("model-*.safetensors"))
    assert len(files) > 2
    assert loaded.weights.files == tuple(files)
    lines = [f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files]
    assert loaded.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    with torch.no_grad():
        loaded.model.classifier.bias += 1
    out = loaded.save(loaded.model, tmp_path)
    same = [f.name for f in files if (out / f.name).read_bytes() == f.read_bytes()]
    assert len(same) == len(files) - 1
    again = from_pretrained(out).state_dict()
    assert all(torch.equal(v, again[n]) for n, v in loaded.model.state_dict().items())


def test_pickles_are_read_and_said(folder):
    held = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(held, folder / "pytorch_model.bin")
    loaded = load(folder)
    assert "written as safetensors" in loaded.notes[0]
    assert torch.equal(loaded.model.state_dict()["classifier.1.bias"], held["classifier.1.bias"])
    out = loaded.save(loaded.model, folder)
    again = from_pretrained(out).state_dict()
    assert all(torch.equal(v, again[n]) for n, v in loaded.model.state_dict().items())


def test_half_weights_are_widened_and_written_back_as_halves(folder, tmp_path):
    def halved(held):
        return {n: v.bfloat16() if v.is_floating_point() else v for n, v in held.items()}

    edit(folder / "config.json", dtype="bfloat16")
    rewrite(folder, halved)
    loaded = load(folder)
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}
    out = loaded.save(loaded.model, tmp_path) / "model.safetensors"
    assert out.read_bytes() == (folder / "model.safetensors").read_bytes()


def test_tensors_that_the_model_lacks_are_kept_and_said(folder, tmp_path):
    rewrite(folder, lambda held: held | {"resnet.extra": torch.ones(3)})
    loaded = load(folder)
    assert "does not use 1 of the tensors, such as 'resnet.extra'" in loaded.notes[0]
    assert "resnet.extra" in load_file(loaded.save(loaded.model, tmp_path) / "model.safetensors")


def test_a_model_without_its_head_is_refused(folder):
    rewrite(folder, lambda held: {n: v for n, v in held.items() if "classifier" not in n})
    with pytest.raises(ValueError, match="does not fit the model: it lacks 'classifier"):
        load(folder)


def test_harmless_code_beside_a_known_model_is_said(folder, tmp_path):
    (folder / "train.py").write_text("raise SystemExit")
    edit(folder / "config.json", auto_map={"AutoModelForImageClassification": "train.Model"})
    loaded = load(folder)
    assert "brings code of its own (train.py), which was not read" in loaded.notes[0]
    assert not (loaded.save(loaded.model, tmp_path) / "train.py").exists()


@pytest.mark.parametrize(
    "config",
    [{"model_type": "theirs"}, {"architectures": ["TheirsForImageClassification"]}],
)
def test_a_model_that_needs_its_code_is_refused_with_the_reason(folder, config):
    (folder / "modeling_theirs.py").write_text("raise SystemExit")
    edit(folder / "config.json", auto_map={"AutoConfig": "modeling_theirs.A"}, **config)
    reason = r"code of its own \('modeling_theirs.py'\), which is never run"
    with pytest.raises(ValueError, match=reason):
        load(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": ["resnet"]}, "knows no model_type"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised weights"),
        ({"depths": [10**9, 1, 1, 1]}, "'depths' is 1000000000, more than 4096"),
        ({"num_labels": 10**9}, "'num_labels' is 1000000000"),
        ({"embedding_size": 10**7, "hidden_sizes": [2**20] * 4}, "far more bytes than the weight"),
        ({"depths": [4096] * 4}, "far more (tensors|modules) than the weight"),
        ({"embedding_size": 10**30}, "more than 2147483648"),
        ({"embedding_size": -3}, "cannot be built"),
        ({"embedding_size": "many"}, "cannot be used"),
        ({"hidden_act": "os.system"}, "cannot be built"),
        ({"hidden_sizes": []}, "cannot be"),
        ({"hidden_sizes": [8, 16, 16, 24]}, "does not fit the model"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_one_line(folder, config, message):
    edit(folder / "config.json", **config)
    with pytest.raises(ValueError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    assert "theirs" in str(caught.value)


def test_a_kernel_named_in_the_configuration_is_ignored(tmp_path):
    folder = write_folder(tmp_path / "a", "vit")
    edit(folder / "config.json", attn_implementation="evil/kernel", _attn_implementation="evil/k")
    assert load(folder).model.config._attn_implementation in ("sdpa", "eager")


class TestClassNames:
    FOLDER = HubFolder(Path("a"), "a", "a", {})

    @pytest.mark.parametrize("labels", [None, {}, {"0": "LABEL_0", "1": "LABEL_1"}])
    def test_labels_that_say_nothing_are_none(self, labels):
        assert class_names(self.FOLDER, labels, 2) == (None, ())

    def test_labels_come_in_the_order_of_their_numbers(self):
        assert class_names(self.FOLDER, {"1": "b", "0": "a"}, 2) == (("a", "b"), ())

    def test_labels_that_stand_twice_get_their_number(self):
        names, notes = class_names(self.FOLDER, {"0": "crane", "1": "fox", "2": "crane"}, 3)
        assert names == ("crane (0)", "fox", "crane (2)")
        assert "'crane'" in notes[0]

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ({"0": "a", "2": "b"}, "must name the classes 0 to 1"),
            ({"0": "a"}, "must name the classes 0 to 1"),
            ({"0": "a", "00": "b", "1": "c"}, "must name the classes 0 to 1"),
            ({"a": "a", "1": "b"}, "must name classes by number"),
            ({"0": "a\x1b[31m", "1": "b"}, "does not print"),
            ({"0": "a", "1": ""}, "does not print"),
            ({"0": "a", "1": 5}, "does not print"),
            ({"0": "x", "1": "x", "2": "x (0)"}, "names a class twice"),
        ],
    )
    def test_other_labels_are_refused(self, labels, message):
        with pytest.raises(ValueError, match=message):
            class_names(self.FOLDER, labels, 3 if "2" in labels and "1" in labels else 2)
