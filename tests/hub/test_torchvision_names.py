# SPDX-License-Identifier: Apache-2.0
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from d3fast.hub import Request, resolve
from d3fast.hub.torchvision_names import resolve_torchvision
from tests.hub.vision import get_model, torchvision  # noqa: F401


@pytest.fixture
def request_(tmp_path, torchvision):  # noqa: F811
    torch.manual_seed(0)
    state = get_model("resnet18", num_classes=5).state_dict()
    torch.save({"state_dict": {f"module.{n}": v for n, v in state.items()}}, tmp_path / "w.pt")
    return Request("torchvision:resnet18", tmp_path / "w.pt")


def test_classes_are_those_of_the_file_and_images_those_of_the_default_weights(request_):
    suspect = resolve(request_)
    assert suspect.model(torch.rand(2, 3, 224, 224)).shape == (2, 5)
    assert (suspect.input.size, suspect.input.shorter) == ((224, 224), 232)
    assert suspect.input.interpolation == "bicubic"
    assert suspect.input.mean == (0.485, 0.456, 0.406)
    assert suspect.notes[0] == (
        "As torchvision configures it: 3x224x224 pixels cut from a shorter edge of 232, "
        "mean 0.485 0.456 0.406, std 0.229 0.224 0.225."
    )
    assert "'module.'" in suspect.notes[-1]


def test_images_are_normalised_in_front_of_the_model(request_):
    suspect = resolve(request_)
    images = torch.rand(1, 3, 32, 32)
    mean, std = (torch.tensor(v)[:, None, None] for v in (suspect.input.mean, suspect.input.std))
    torch.testing.assert_close(suspect.model(images), suspect.model.inner((images - mean) / std))


def test_a_tag_names_other_weights_and_options_replace_the_configuration(request_):
    suspect = resolve(replace(request_, model="torchvision:resnet18.IMAGENET1K_V1"))
    assert suspect.input.shorter == 256
    given = resolve(replace(request_, mean=(0.5,) * 3, std=(0.25,) * 3, size=112))
    assert (given.input.size, given.input.shorter) == ((112, 112), 116)
    assert (given.model.mean, given.model.std) == ((0.5,) * 3, (0.25,) * 3)


def test_a_repaired_model_has_the_names_of_the_file(request_, tmp_path):
    suspect = resolve(request_)
    assert "module.fc.weight" in load_file(suspect.save(suspect.model, tmp_path))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("torchvision:nosuch", "has no weights '' of it: Unknown model nosuch"),
        ("torchvision:resnet18.V9", "has no weights 'V9' of it"),
        ("torchvision:fcn_resnet50", "must classify images"),
        ("torchvision:resnet34", "does not fit the model"),
    ],
)
def test_what_does_not_fit_is_one_line(request_, model, says):
    with pytest.raises(ValueError, match=says):
        resolve(replace(request_, model=model))


def test_a_grey_first_layer_needs_a_factory(request_, tmp_path):
    state = get_model("resnet18").state_dict()
    torch.save({**state, "conv1.weight": torch.zeros(4, 1, 7, 7)}, tmp_path / "grey.pt")
    with pytest.raises(ValueError, match=r"1 channels.*package\.module:factory"):
        resolve(replace(request_, checkpoint=tmp_path / "grey.pt"))


def test_without_a_weight_file_nothing_is_downloaded(request_):
    with pytest.raises(ValueError, match="nothing is downloaded: give --checkpoint FILE"):
        resolve(replace(request_, checkpoint=None))


def test_without_torchvision_it_says_so(request_, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(ValueError, match="needs torchvision: pip install torchvision"):
        resolve(request_)


def test_other_forms_are_left_to_others():
    assert resolve_torchvision(Request("timm:resnet18")) is None
