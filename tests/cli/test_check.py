"""``d3fast check``: a model and clean samples in; a page, a document and an exit code out."""

import json

import pytest

from d3fast.io.files import sha256
from d3fast.results.store import read_results


@pytest.fixture
def check(call, tiny, tmp_path, monkeypatch):
    """Calls the command in an empty folder; the head detector alone, unless another is named."""
    monkeypatch.chdir(tmp_path)

    def invoke(model="plain", more="", detectors="head"):
        line = f"check preact_resnet_tiny --checkpoint {tiny}/{model}.safetensors"
        return call(f"{line} --data {tiny}/clean.npz --detectors {detectors} --steps 3 {more}")

    return invoke


def folder_of(tmp_path):
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def test_a_model_that_is_not_flagged_is_code_0_and_has_a_page(check, tiny, tmp_path):
    result = check()
    assert result.exit_code == 0, result.output
    folder = folder_of(tmp_path)
    assert folder.name == f"plain-{sha256(tiny / 'plain.safetensors')[:8]}"
    assert {path.name for path in folder.iterdir()} == {
        "inspect.json",
        "weights.json",
        "report.html",
    }
    assert "No detector flags" in result.stdout
    assert (
        f"Written to runs/{folder.name}: inspect.json, weights.json, report.html." in result.stdout
    )


@pytest.mark.parametrize(("fail_on", "code"), [("", 1), ("--fail-on accuracy", 0)])
def test_signs_are_code_1_unless_they_are_not_to_fail(check, fail_on, code):
    result = check("planted", fail_on)
    assert result.exit_code == code, result.output
    assert "Possible backdoor" in result.stdout


def test_two_models_of_one_name_have_two_folders(check, tmp_path, tiny):
    assert check("plain").exit_code == 0
    assert check("planted").exit_code == 1
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_the_folder_of_another_model_is_refused_in_one_line_and_kept(check, tmp_path):
    assert check("planted", "--out audit").exit_code == 1
    before = {path.name: path.read_bytes() for path in (tmp_path / "audit").iterdir()}
    result = check("plain", "--out audit")
    assert result.exit_code == 2
    assert "audit has results of another model" in result.stderr
    assert result.stderr.count("\n") == 1
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "audit").iterdir()}


def test_json_on_standard_output_is_the_document_of_the_file(check, tmp_path):
    result = check("planted", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == json.loads(
        (folder_of(tmp_path) / "inspect.json").read_text()
    )
    assert "Possible backdoor" in result.stderr


def test_quiet_prints_nothing(check):
    result = check("planted", "--quiet")
    assert (result.exit_code, result.output) == (1, "")


def test_options_come_from_a_file_too(check, tmp_path):
    (tmp_path / "d3.toml").write_text('seed = 3\nfail-on = "none"\n[check]\nout = "there"\n')
    assert check("planted", "--config d3.toml").exit_code == 0
    assert read_results(tmp_path / "there" / "inspect.json").settings["seed"] == 3


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--fail-on luck", "fail-on must be one of"),
        ("--detectors luck", "detectors must be one of"),
        ("--device warp", "device must be"),
        ("--config nowhere.toml", "nowhere.toml"),
        ("--mean a", "mean must be numbers"),
        ("--mean 123 --std 58", "divide numbers of 0 to 255 by 255"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(check, tmp_path, more, message):
    result = check("plain", more)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("no space")])
@pytest.mark.parametrize("step", ["inspect_audit", "write_audit_page"])
def test_an_interrupted_check_leaves_nothing(check, tmp_path, monkeypatch, step, error):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(f"d3fast.cli.check.{step}", fails)
    monkeypatch.setattr("signal.raise_signal", lambda _: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    check("plain")
    assert list(tmp_path.iterdir()) == []


def test_a_normalisation_that_looks_wrong_is_a_note_if_told_to_go_on(check):
    result = check("plain", "--mean 123 --std 58 --any-accuracy")
    assert result.exit_code == 0, result.output
    assert "note: mean and std must be those of images in [0, 1]" in result.stderr
