"""``d3fast spectrum``."""

import json

import pytest

from d3fast.attacks import BadNets
from d3fast.attacks.files import save_attack
from d3fast.data import load, save_samples
from d3fast.detox import save_weights
from d3fast.io.files import sha256
from d3fast.models import make_model
from d3fast.runtime.seeding import global_seed

MODEL = "preact_resnet_tiny"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A suspect and two repaired models, all of random weights; a trigger and clean samples."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for seed, name in enumerate(("backdoored", "fine-tuned", "repaired")):
        with global_seed(seed):
            save_weights(make_model(MODEL, 10, 1), folder / f"{name}.safetensors")
    save_samples(load("digits", 0, train=300, clean=100).clean, folder / "clean.npz")
    trigger = folder / "backdoored.trigger.safetensors"
    save_attack(BadNets(target=0, size=2, margin=0), trigger, "badnets")
    return folder


def _spectrum(call, checkpoints, out, arguments):
    line = f"spectrum --checkpoint {checkpoints}/backdoored.safetensors --model {MODEL} --out {out}"
    return call(f"{line} --samples 20 --k 1 --probes 1 --steps 2 --device cpu {arguments}")


def test_spectrum_writes_a_page_and_json_for_a_suspect_and_its_repairs(call, checkpoints, tmp_path):
    files = {name: checkpoints / f"{name}.safetensors" for name in ("fine-tuned", "repaired")}
    repaired = " ".join(f"--repaired {path}" for path in files.values())
    trigger = checkpoints / "backdoored.trigger.safetensors"
    arguments = f"{repaired} --trigger {trigger} --params head"
    result = _spectrum(call, checkpoints, tmp_path / "out", arguments)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "spectrum.json").read_text())
    names = {row["model"] for row in document["rows"]}
    assert names == {"suspect", "fine-tuned", "repaired"}
    assert document["command"].endswith(
        "--samples 20 --params head --kind hessian --k 1 --tol 0.01 --probes 1 --steps 2 --seed 0"
    )
    assert str(tmp_path) not in json.dumps(document)
    settings = document["settings"]
    assert settings["sha256"] == sha256(checkpoints / "backdoored.safetensors")
    assert settings["repaired"] == {name: sha256(path) for name, path in files.items()}


def test_spectrum_takes_clean_samples_of_ones_own(call, checkpoints, tmp_path):
    arguments = f"--params head --data {checkpoints}/clean.npz"
    result = _spectrum(call, checkpoints, tmp_path / "out", arguments)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "spectrum.json").read_text())
    assert document["settings"]["data"] == "clean.npz"
    assert str(tmp_path) not in json.dumps(document)


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        ("--repaired nowhere.safetensors", "nowhere.safetensors"),
        ("--losses backdoor", "without a trigger there is clean alone"),
        ("--params nothing", "selects no trainable parameter"),
        ("--k 1000000000", "k must be at most the"),
        ("--model vgg19_bn", "backdoored.safetensors"),
        ("--kind fisher", "kind must be one of"),
    ],
)
def test_spectrum_says_in_one_line_what_it_cannot_use(
    call, checkpoints, tmp_path, arguments, error_text
):
    result = _spectrum(call, checkpoints, tmp_path / "out", arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.output.strip().splitlines()
    assert line.startswith("error: ")
    assert error_text in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_trigger_for_other_images_is_refused_before_anything_is_measured(
    call, checkpoints, tmp_path
):
    save_attack(BadNets(target=11, size=2), tmp_path / "t.safetensors", "badnets")
    result = _spectrum(call, checkpoints, tmp_path / "out", f"--trigger {tmp_path}/t.safetensors")
    assert result.exit_code == 2
    assert "target must be in 0..9 for these samples, got 11" in result.stderr
    assert not (tmp_path / "out").exists()
