# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from d3fast.cli.main import app
from d3fast.hub import Request, resolve
from tests.io.onnx_files import classifier, field, model, node, weights


def written(folder, content, name="m.onnx"):
    (folder / name).write_bytes(content)
    return str(folder / name)


def test_an_onnx_file_is_a_model_of_images(tmp_path):
    suspect = resolve(Request(written(tmp_path, classifier())))
    assert (suspect.name, suspect.spec, suspect.family) == ("m", "m.onnx", "onnx")
    assert (suspect.input.channels, suspect.input.size) == (1, (4, 4))
    assert suspect.notes == (
        "ONNX, 4 operators, 3 outputs.",
        "The program takes images of 1x4x4.",
    )
    assert suspect.model(torch.rand(2, 1, 4, 4)).shape == (2, 3)


def test_the_normalisation_is_the_given_one(tmp_path):
    path, images = written(tmp_path, classifier()), torch.rand(2, 1, 4, 4)
    plain = resolve(Request(path)).model
    scaled = resolve(Request(path, mean=(0.5,), std=(0.25,))).model
    torch.testing.assert_close(scaled(images), plain((images - 0.5) / 0.25))


def test_the_first_output_with_a_row_of_scores_is_taken(tmp_path):
    content = classifier(outputs=("c", "y"))
    suspect = resolve(Request(written(tmp_path, content)))
    assert "Of 2 outputs, 'y' is the scores." in suspect.notes


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (classifier(None, None, node("Any", "y", "z", domain="a.b"), outputs=("z",)), "a.b::Any"),
        (model([node("Relu", "x", "y")], more=field(11, field(1, "z"))), "2 inputs"),
        (classifier(outputs=("c",)), "no row of scores"),
        (b"text", "damaged or no ONNX file"),
    ],
)
def test_what_cannot_be_checked_is_refused_with_the_reason(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"m\.onnx.*{message}"):
        resolve(Request(written(tmp_path, content)))


def test_an_onnx_file_is_no_checkpoint_and_takes_none(tmp_path):
    path = written(tmp_path, classifier())
    with pytest.raises(ValueError, match="without --checkpoint"):
        resolve(Request(path, checkpoint=tmp_path / "w.pt"))
    with pytest.raises(ValueError, match="give it alone, as the model"):
        resolve(Request("timm:resnet18", checkpoint=tmp_path / "m.onnx"))


def test_check_reads_the_weights_alone(tmp_path):
    path = written(tmp_path, classifier())
    ran = CliRunner().invoke(app, ["check", path, "--out", str(tmp_path / "audit")])
    assert ran.exit_code in (0, 1), ran.output
    assert (tmp_path / "audit" / "weights.json").exists()


def test_repair_writes_an_onnx_file_again(tmp_path):
    """Classes are the brightest third: a model that a few steps change and keep right."""
    held = {name: np.zeros_like(value) for name, value in weights().items()}
    held["conv.weight"][:, 0, 1, 1] = 1
    for label in range(3):
        held["fc.weight"][label, [4 * label, 4 * label + 1, 16 + 4 * label]] = 9
    path = written(tmp_path, classifier(batch=1, given=held))
    draws, labels = np.random.default_rng(0), np.arange(90) % 3
    images = draws.integers(0, 60, (90, 4, 4), dtype=np.uint8)
    images[np.arange(90), labels, :2] = 255
    np.savez(tmp_path / "clean.npz", images=images, labels=labels)
    options = ["--data", str(tmp_path / "clean.npz"), "--out", str(tmp_path / "audit")]
    options += ["--detectors", "head", "--epochs", "1", "--restart", "0", "--fail-on", "none"]
    ran = CliRunner().invoke(app, ["repair", path, *options])
    assert ran.exit_code == 0, ran.output
    repaired = tmp_path / "audit" / "repaired.onnx"
    before, after = resolve(Request(path)).model, resolve(Request(str(repaired))).model
    assert not torch.equal(before.fc.weight, after.fc.weight)
