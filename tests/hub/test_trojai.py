"""Model folders of TrojAI, written here as its documentation describes them."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from d3fast.audit.resolve import open_audit
from d3fast.hub import Request, resolve
from d3fast.hub.trojai import resolve_trojai
from d3fast.models import make_model


@pytest.fixture
def folder(tmp_path):
    """A whole model of two classes, its ground truth and clean samples."""
    place = tmp_path / "id-00000007"
    examples = place / "clean-example-data"
    examples.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(make_model("preact_resnet_tiny", 2, 3), place / "model.pt")
    (place / "config.json").write_text(json.dumps({"py/object": "config", "architecture": "x"}))
    (place / "ground_truth.csv").write_text("1\n")
    draws = np.random.default_rng(0)
    for number in range(8):
        pixels = draws.integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(examples / f"{number}.png")
        (examples / f"{number}.json").write_text(str(number % 2))
    return place


def test_the_weights_of_the_whole_model_are_read(folder):
    suspect = resolve(Request(str(folder)))
    assert (suspect.name, suspect.spec) == ("id-00000007", "preact_resnet_tiny")
    assert suspect.notes[:3] == (
        "A model folder of TrojAI: id-00000007.",
        "ground_truth.csv says: poisoned. Nothing here uses it.",
        "Images are taken in [0, 1] without a normalisation (--mean, --std).",
    )
    assert any("PreActResNet', which are not made" in note for note in suspect.notes)
    saved = torch.load(folder / "model.pt", weights_only=False).eval()
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(suspect.model(images), saved(images))


@pytest.mark.parametrize("names", ["numbers", "classes"])
def test_its_clean_samples_are_labelled(folder, names):
    examples = folder / "clean-example-data"
    if names == "classes":
        for path in examples.glob("*.json"):
            image = path.with_suffix(".png")
            image.rename(examples / f"class_{path.read_text()}_example_{path.stem}.png")
            path.unlink()
    audit = open_audit(Request(str(folder)), examples, device="cpu")
    assert audit.labelled
    assert audit.data.classes == ("0", "1")
    assert audit.data.labels.bincount().tolist() == [4, 4]


def test_a_model_of_other_classes_is_refused_with_the_way_out(folder):
    class Net(nn.Linear):
        pass

    Net.__qualname__, globals()["Net"] = "Net", Net
    torch.save(Net(3, 2), folder / "model.pt")
    with pytest.raises(ValueError, match=r"object of .*Net: refused"):
        resolve(Request(str(folder)))


def test_a_checkpoint_beside_it_is_refused(folder):
    with pytest.raises(ValueError, match=r"brings its own model\.pt: leave out --checkpoint"):
        resolve(Request(str(folder), folder / "model.pt"))


def test_other_folders_are_left_to_others(folder, tmp_path):
    assert resolve_trojai(Request(str(tmp_path))) is None
    assert resolve_trojai(Request("hf://org/name")) is None
    (folder / "ground_truth.csv").unlink()
    for path in (folder / "clean-example-data").iterdir():
        path.unlink()
    (folder / "clean-example-data").rmdir()
    assert resolve_trojai(Request(str(folder))) is None
