# SPDX-License-Identifier: Apache-2.0
"""With timm where it can be imported (it needs torchvision), and without it."""

import sys
from dataclasses import replace

import pytest
import torch

from d3fast.hub import Request, resolve
from d3fast.hub.timm_names import resolve_timm


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="timm needs torchvision", exc_type=ImportError)


@pytest.fixture
def request_(tmp_path, timm):
    model = timm.create_model("resnet10t", num_classes=5, in_chans=1)
    torch.save({"state_dict_ema": model.state_dict()}, tmp_path / "w.pt")
    return Request("timm:resnet10t.c3_in1k", tmp_path / "w.pt")


def test_classes_and_channels_are_those_of_the_file(request_):
    suspect = resolve(request_)
    assert suspect.model(torch.rand(2, 1, 64, 64)).shape == (2, 5)
    assert suspect.family == "resnet10t"
    assert suspect.input.size == (176, 176)
    assert suspect.input.shorter == 201
    assert suspect.input.mean == pytest.approx((0.449,), abs=1e-3)
    assert "EMA" in suspect.notes[1]


def test_position_embeddings_tell_the_size(tmp_path, timm):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, img_size=96)
    torch.save(model.state_dict(), tmp_path / "w.pt")
    suspect = resolve(Request("timm:vit_tiny_patch16_224", tmp_path / "w.pt"))
    assert suspect.input.size == (96, 96)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("timm:nosuch", "timm refuses it: Unknown model"),
        ("timm:resnet10t.nosuch", "timm refuses it: Invalid pretrained tag"),
        ("timm:hf_hub:org/name", "is no name of timm"),
        ("timm:resnet18", "does not fit the model"),
    ],
)
def test_what_does_not_fit_is_one_line(request_, model, says):
    with pytest.raises(ValueError, match=says):
        resolve(replace(request_, model=model))


def test_without_a_weight_file_nothing_is_downloaded():
    with pytest.raises(ValueError, match="nothing is downloaded: give --checkpoint FILE"):
        resolve(Request("timm:resnet18"))


def test_without_timm_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match="needs timm: pip install timm"):
        resolve(Request("timm:resnet18", tmp_path / "w.pt"))


def test_other_forms_are_left_to_others():
    assert resolve_timm(Request("torchvision:resnet18")) is None
