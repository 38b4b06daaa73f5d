"""Saved attacks: the format, and files that are damaged or forged."""

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from d3fast.attacks import BadNets, load_attack, save_attack

GOOD = {"format": "d3fast.attack/1", "attack": "badnets", "options": '{"target": 3}'}


def test_the_file_is_plain_safetensors_with_readable_options(tmp_path):
    save_attack(BadNets(target=3), tmp_path / "a.safetensors", "badnets")
    content = (tmp_path / "a.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert header["__metadata__"]["attack"] == "badnets"
    assert json.loads(header["__metadata__"]["options"]) == {
        "target": 3,
        "size": 3,
        "margin": 1,
        "mapping": "all-to-one",
    }


def test_saving_into_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        save_attack(BadNets(0), tmp_path / "nowhere" / "a.safetensors", "badnets")


@pytest.mark.parametrize(
    ("metadata", "error_text"),
    [
        (None, r"a\.safetensors is not a saved attack"),
        ({**GOOD, "format": "pt"}, "is not a saved attack"),
        (
            {**GOOD, "format": "d3fast.attack/2"},
            r"not a saved attack \(format d3fast\.attack/1\)",
        ),
        ({**GOOD, "attack": "other"}, r"attack must be one of 'badnets', .*, got 'other'"),
        ({"format": GOOD["format"]}, "is a damaged saved attack: 'options'"),
        ({k: GOOD[k] for k in ("format", "options")}, "is a damaged saved attack: 'attack'"),
        ({**GOOD, "options": "{"}, "is a damaged saved attack: "),
        ({**GOOD, "options": "[3]"}, r"is a damaged saved attack: its options are \[3\]"),
        ({**GOOD, "options": "[" * 100_000}, "is a damaged saved attack: "),
        ({**GOOD, "options": "{}"}, "options that 'badnets' cannot take: .*'target'"),
        ({**GOOD, "options": '{"target": 3, "run": 1}'}, "options that 'badnets' cannot take"),
        ({**GOOD, "options": '{"target": "3"}'}, "target must be an integer >= 0, got '3'"),
        ({**GOOD, "options": '{"target": NaN}'}, "target must be an integer >= 0, got nan"),
        ({**GOOD, "options": '{"target": null}'}, "target must be an integer >= 0, got None"),
        ({**GOOD, "options": '{"target": -1}'}, "target must be an integer >= 0, got -1"),
    ],
    ids=[
        "no metadata",
        "a model",
        "newer format",
        "unknown attack",
        "no options",
        "no name",
        "broken JSON",
        "options are a list",
        "deep JSON",
        "option missing",
        "unknown option",
        "text",
        "NaN",
        "null",
        "negative",
    ],
)
def test_a_made_up_file_gives_one_clear_error(tmp_path, metadata, error_text):
    path = tmp_path / "a.safetensors"
    save_file({}, path, metadata=metadata)
    with pytest.raises(ValueError, match=error_text):
        load_attack(path)


def test_tensors_an_attack_does_not_have_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"pattern": torch.zeros(2)}, path, metadata=GOOD)
    with pytest.raises(ValueError, match="BadNets learns no tensors, got pattern"):
        load_attack(path)


class _Executes:
    def __reduce__(self):
        return (pytest.fail, ("a file was executed",))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 64,
        pickle.dumps(_Executes()),
        (2**60).to_bytes(8, "little") + b"{}",
    ],
    ids=["empty", "short", "noise", "pickle", "huge header"],
)
def test_a_file_that_is_no_safetensors_is_refused_and_never_executed(tmp_path, content):
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors is not a safetensors file"):
        load_attack(path)


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_truncated_file_is_refused(tmp_path, cut):
    path = tmp_path / "a.safetensors"
    save_file({"pattern": torch.zeros(64)}, path, metadata=GOOD)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match="is not a safetensors file"):
        load_attack(path)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_attack(tmp_path / "nowhere.safetensors")
