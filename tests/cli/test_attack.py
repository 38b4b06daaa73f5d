"""``d3fast attack``."""

import json
import sys

import pytest

SHORT = "--train 32 --epochs 1 --no-clean-model --device cpu"


def test_attack_writes_model_trigger_and_card(call, tmp_path):
    out = tmp_path / "made"
    line = "attack --attack badnets --model preact_resnet_tiny --train 64 --epochs 1 --seed 2"
    result = call(f"{line} --device cpu", "--out", out)
    assert result.exit_code == 0, result.output
    files = {"backdoored.safetensors", "backdoored.trigger.safetensors", "card.json"}
    assert {p.name for p in out.iterdir()} == files
    card = json.loads((out / "card.json").read_text())
    (row,) = card["rows"]
    assert {"attack": "badnets", "target": 0, "ratio": 0.1, "seed": 2}.items() <= row.items()
    assert {"acc", "asr", "ra", "floor"} <= row.keys()
    assert str(tmp_path) not in json.dumps(card)
    again = call(card["command"].removeprefix("d3fast "), "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    (same,) = json.loads((tmp_path / "again" / "card.json").read_text())["rows"]
    assert all(same[key] == row[key] for key in row if not key.endswith("seconds"))


def test_a_factory_of_ones_own_is_found_in_the_current_folder(call, tmp_path, monkeypatch):
    (tmp_path / "my_models_here.py").write_text(
        "from torch import nn\n\n"
        "def small(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = call(f"attack --attack badnets --model my_models_here:small --out made {SHORT}")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "made" / "card.json").exists()


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        ("bad", "attack must be one of 'badnets'"),
        ("badnets --dataset mnist", "dataset must be one of 'digits'"),
        ("badnets --model resnet", "resnet"),
        ("badnets --model no_such_module:make", "no_such_module"),
        ("badnets --target 10", "target must be in 0..9, got 10"),
        ("badnets --ratio 1.5", "ratio must be in 0..1, got 1.5"),
        ("badnets --adaptive sam", "adaptive must be one of 'sam-1'"),
    ],
)
def test_attack_says_in_one_line_what_it_cannot_use(call, tmp_path, arguments, error_text):
    out = tmp_path / "made"
    result = call(f"attack --attack {arguments} {SHORT}", "--out", out)
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert line.startswith("error: ")
    assert error_text in line
    assert not out.exists() or not list(out.iterdir())


def test_a_model_of_ones_own_gets_a_backdoor_and_keeps_its_format(call, tiny, tmp_path):
    out = tmp_path / "made"
    line = f"attack --attack badnets --model preact_resnet_tiny --data {tiny}/clean.npz"
    line += f" --checkpoint {tiny}/plain.safetensors --target 2 --device cpu"
    result = call(f"{line} --ratio 0.4 --lr 0.01 --epochs 30", "--out", out)
    assert result.exit_code == 0, result.output
    files = {"backdoored.safetensors", "backdoored.trigger.safetensors", "card.json"}
    assert {path.name for path in out.iterdir()} == files
    card = json.loads((out / "card.json").read_text())
    assert card["settings"]["options"]["attack"] == "badnets"
    assert card["rows"][0]["target"] == 2


def test_a_trigger_that_is_not_learned_is_one_line_that_says_what_to_change(call, tiny, tmp_path):
    out = tmp_path / "made"
    line = f"attack --attack badnets --model preact_resnet_tiny --data {tiny}/clean.npz --epochs 1"
    result = call(f"{line} --checkpoint {tiny}/plain.safetensors --device cpu", "--out", out)
    assert result.exit_code == 2
    line = result.output.strip().splitlines()[-1]
    assert line.startswith("error: the model did not learn the trigger of badnets")
    assert "Training was 1 epoch of 30 samples, poison ratio 0.1" in line
    assert "raise --epochs, --ratio or --lr" in line
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("--adaptive sam-1", "adaptive, mapping and train are for a data set"),
        ("--mapping all-to-all", "adaptive, mapping and train are for a data set"),
        ("--attack sentence", "the model takes images: attack must be one of badnets"),
        ("--target 9", "target must be in 0..3, got 9"),
    ],
)
def test_options_that_do_not_fit_ones_own_model_are_one_line(call, tiny, tmp_path, more, says):
    line = f"attack --attack badnets --model preact_resnet_tiny --data {tiny}/clean.npz --epochs 1"
    line += f" --checkpoint {tiny}/plain.safetensors --device cpu {more}"
    result = call(line, "--out", tmp_path / "made")
    assert result.exit_code == 2
    assert says in result.stderr
    assert not (tmp_path / "made").exists()


def test_an_attack_on_texts_needs_ones_own_texts(call, tmp_path):
    result = call("attack --attack rare-token", "--out", tmp_path / "made")
    assert result.exit_code == 2
    assert "needs a model and texts of your own: --data" in result.stderr
