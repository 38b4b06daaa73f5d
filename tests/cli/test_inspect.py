"""``d3fast inspect``: a checkpoint and clean samples in, a table, a sentence and a file out."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from d3fast.audit.model_report import parse_model_report
from d3fast.audit.places import default_folder
from d3fast.io.files import sha256
from d3fast.models import make_model
from d3fast.results.store import read_results


@pytest.fixture
def inspect(call, tmp_path, monkeypatch):
    """Calls the command from a folder that has nothing to do with the source."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    save_file(make_model("preact_resnet_tiny", 4, 1).state_dict(), "suspect.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8), np.uint8)
    np.savez("clean.npz", images=images, labels=np.arange(24) % 4)

    given = "--checkpoint suspect.safetensors --data clean.npz --model preact_resnet_tiny --steps 3"
    return lambda arguments="": call(f"inspect {given} {arguments}")


def test_it_writes_what_it_found_into_the_audit_folder(inspect, tmp_path):
    result = inspect()
    assert result.exit_code == 0, result.output
    folder = default_folder("suspect", sha256(tmp_path / "suspect.safetensors"))
    assert f"Written to {folder}/inspect.json" in result.output
    written = read_results(tmp_path / folder / "inspect.json")
    found = parse_model_report(written.rows, "suspect")
    assert found.model.sha256 == sha256(tmp_path / "suspect.safetensors")
    assert found.verdict.text in " ".join(result.output.split())
    assert found.metrics.images == 24
    assert len(found.inversions) == 4
    assert [result.name for result in found.detectors] == ["patch", "head", "shift", "margin"]
    assert written.settings["checkpoint"] == "suspect.safetensors"
    assert written.settings["options"]["inversion"]["steps"] == 3
    assert str(tmp_path) not in written.command


def test_the_table_has_a_line_per_detector(inspect):
    output = inspect("--detectors 'head, margin'").output
    assert [
        line.split()[0]
        for line in output.splitlines()
        if line.startswith((" head", " margin", "head", "margin"))
    ] == ["head", "margin"]
    assert "shift" not in output


def test_the_old_name_of_detectors_works_and_warns(inspect):
    result = inspect("--signs head")
    assert result.exit_code == 0
    assert result.stderr == "warning: --signs is now --detectors\n"
    assert "shift" not in result.stdout


def test_the_same_seed_writes_the_same_rows(inspect, tmp_path):
    for place in ("a", "b"):
        assert inspect(f"--out {place} --seed 5").exit_code == 0
    first, second = (read_results(tmp_path / place / "inspect.json").rows for place in "ab")
    assert first == second


@pytest.mark.parametrize(
    ("args", "error_text"),
    [
        (
            "--detectors luck",
            "detectors must be one of 'patch', 'head', 'shift', 'margin', 'differential', "
            "'wave', 'token', 'phrase', got",
        ),
        ("--detectors ''", "detectors must be one of"),
        ("--rate 2", "rate must be > 0 and < 1, got 2.0"),
        ("--checkpoint none.safetensors", "none.safetensors"),
        ("--data none", "none is missing"),
        ("--model vit_tiny", "does not fit the model"),
        ("--device gpu0", "device must be"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_code_2(inspect, tmp_path, args, error_text):
    result = inspect(args)
    assert result.exit_code == 2
    assert error_text in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_samples_of_one_class_are_refused(inspect, tmp_path):
    np.savez(tmp_path / "clean.npz", images=np.zeros((6, 8, 8), np.uint8), labels=np.zeros(6, int))
    result = inspect()
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
