"""SARIF and CycloneDX beside ``check`` and ``repair``, and ``check`` without samples."""

import json

import pytest

from d3fast.cli.gate import GateOptions, _location
from d3fast.hub import Classifier, ImageInput, Suspect
from d3fast.models import load_weights, make_model
from tests.audit.report.documents import write

SHA = 64 * "d"


@pytest.fixture
def alone(call, tiny, tmp_path, monkeypatch):
    """Calls ``check`` without samples on a model of the fixture."""
    monkeypatch.chdir(tmp_path)

    def invoke(model, more=""):
        net = make_model("preact_resnet_tiny", 4, 1)
        load_weights(net, tiny / f"{model}.safetensors")
        suspect = Suspect(
            Classifier(net).eval(), model, model, "PreActResNet", ImageInput(1), tuple("abcd"),
            (tiny / f"{model}.safetensors",), SHA, ("A note.",), None,
        )  # fmt: skip
        monkeypatch.setattr("d3fast.cli.check.resolve", lambda request: suspect)
        return call(f"check {model} --out audit {more}")

    return invoke


@pytest.mark.parametrize(("model", "code"), [("plain", 0), ("planted", 1)])
def test_without_samples_the_weights_decide(alone, tmp_path, model, code):
    result = alone(model)
    assert result.exit_code == code, result.output
    names = {path.name for path in (tmp_path / "audit").iterdir()}
    assert names == {"weights.json", "report.html"}
    assert "not calibrated for this kind of model" in " ".join(result.stdout.split())
    assert "note: A note." in result.stderr


def test_fail_on_and_json_hold_without_samples(alone, tmp_path):
    result = alone("planted", "--fail-on none --json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json.loads((tmp_path / "audit/weights.json").read_text())


def test_the_folder_of_another_model_is_refused(alone, tmp_path):
    (tmp_path / "audit").mkdir()
    write(tmp_path / "audit", "weights")
    result = alone("plain")
    assert result.exit_code == 2
    assert "audit has results of another model" in result.stderr


def test_both_files_are_written_beside_the_audit(alone, tmp_path):
    result = alone("planted", "--sarif out/check.sarif --bom bom.json")
    assert result.exit_code == 1
    (run,) = json.loads((tmp_path / "out" / "check.sarif").read_text())["runs"]
    assert run["results"]
    bom = json.loads((tmp_path / "bom.json").read_text())
    assert bom["metadata"]["component"]["hashes"][0]["content"] == SHA
    assert "weights.json, report.html, check.sarif, bom.json" in result.stdout


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_done(alone, tmp_path):
    result = alone("planted", "--sarif .")
    assert result.exit_code == 2
    assert "not a regular file" in result.stderr
    assert not (tmp_path / "audit").exists()


def test_check_with_samples_writes_them_too(call, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = f"check preact_resnet_tiny --checkpoint {tiny}/planted.safetensors"
    line += f" --data {tiny}/clean.npz --detectors head --steps 1 --sarif a.sarif --out audit"
    assert call(line).exit_code == 1
    (run,) = json.loads((tmp_path / "a.sarif").read_text())["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["backdoor/head"]
    assert str(tiny) not in (tmp_path / "a.sarif").read_text()


def test_nothing_is_read_where_nothing_is_asked_for(tmp_path):
    assert GateOptions().write(tmp_path / "missing", "model") == []


def test_only_a_path_inside_the_current_folder_is_a_location(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "a").mkdir(parents=True)
    assert _location("models/a") == "models/a"
    for other in (str(tmp_path / "models"), "../x", "models/../models", "timm:resnet18"):
        assert _location(other) is None
