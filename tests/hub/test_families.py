# SPDX-License-Identifier: Apache-2.0
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from d3fast.detox import save_weights
from d3fast.hub import Request, resolve
from d3fast.hub.families import resolve_weight_file
from d3fast.models import make_model
from tests.hub.vision import get_model, torchvision  # noqa: F401


@pytest.mark.parametrize("name", ["preact_resnet_tiny", "preact_resnet_narrow", "vit_tiny"])
def test_a_model_of_this_package_is_inferred_with_its_classes_and_channels(tmp_path, name):
    save_weights(make_model(name, 7, 1), tmp_path / "w.safetensors")
    suspect = resolve(Request(str(tmp_path / "w.safetensors"), size=28))
    assert (suspect.spec, suspect.name, suspect.input.channels) == (name, "w", 1)
    assert suspect.model(torch.rand(2, 1, 28, 28)).shape == (2, 7)
    assert suspect.notes == (
        f"The architecture is inferred from names and shapes of the weights: {name}, 7 classes, "
        "1 channels.",
    )


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_a_model_of_torchvision_is_inferred(tmp_path, torchvision, name):  # noqa: F811
    state = get_model(name, num_classes=5).state_dict()
    save_file({f"model.{n}": v for n, v in state.items()}, tmp_path / "w.safetensors")
    suspect = resolve(Request(str(tmp_path / "w.safetensors")))
    assert suspect.spec == f"torchvision:{name}"
    assert f"weights: torchvision:{name}. Its mean and std are assumed" in suspect.notes[0]
    assert "'model.'" in suspect.notes[-1]
    assert load_file(suspect.save(suspect.model, tmp_path)).keys() == {f"model.{n}" for n in state}


def test_a_given_normalisation_is_not_assumed(tmp_path, torchvision):  # noqa: F811
    save_file(get_model("resnet18").state_dict(), tmp_path / "w.safetensors")
    request = Request(str(tmp_path / "w.safetensors"), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert "assumed" not in " ".join(resolve(request).notes)


def test_a_family_without_its_library_names_the_library(tmp_path, monkeypatch):
    for library in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, library, None)
    save_file(get_model("resnet18").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="a ResNet needs torchvision: pip install torchvision"):
        resolve(Request(str(tmp_path / "w.safetensors")))


def test_an_unknown_architecture_says_what_is_needed(tmp_path):
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"do not tell the architecture: .* --checkpoint"):
        resolve(Request(str(tmp_path / "w.safetensors")))


def test_names_alone_do_not_make_a_family(tmp_path, torchvision):  # noqa: F811
    state = get_model("resnet18").state_dict()
    state["conv1.weight"] = torch.zeros(4, 3, 3, 3)  # as in networks for small images
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="do not tell the architecture"):
        resolve(Request(str(tmp_path / "w.safetensors")))


def test_a_second_file_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="without --checkpoint"):
        resolve(Request("w.safetensors", tmp_path / "w.pt"))
    with pytest.raises(FileNotFoundError):
        resolve(Request(str(tmp_path / "w.safetensors")))


@pytest.mark.parametrize("model", ["resnet18", "hf://org/w.safetensors", "folder"])
def test_other_forms_are_left_to_others(model):
    assert resolve_weight_file(Request(model)) is None
