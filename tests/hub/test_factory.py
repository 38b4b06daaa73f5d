# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from d3fast.detox import save_weights
from d3fast.hub import Request, resolve
from d3fast.models import load_weights, make_model


@pytest.fixture
def request_(tmp_path):
    torch.manual_seed(0)
    save_weights(make_model("preact_resnet_tiny", 3, 1), tmp_path / "theirs.safetensors")
    return Request("preact_resnet_tiny", tmp_path / "theirs.safetensors", classes=3, channels=1)


def test_a_name_with_a_weight_file_is_a_suspect(request_):
    suspect = resolve(request_)
    assert (suspect.name, suspect.spec) == ("theirs", "preact_resnet_tiny")
    assert suspect.model(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    assert not suspect.model.training


def test_a_repaired_model_is_written_as_a_weight_file(request_, tmp_path):
    suspect = resolve(request_)
    written = suspect.save(suspect.model, tmp_path)
    assert written == tmp_path / "repaired.safetensors"
    again = make_model("preact_resnet_tiny", 3, 1)
    load_weights(again, written)
    for one, other in zip(again.parameters(), suspect.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_names_prefixes_and_the_bytes_of_unchanged_tensors_are_those_of_the_file(tmp_path):
    torch.manual_seed(0)
    state = make_model("preact_resnet_tiny", 3, 1).half().state_dict()
    theirs = {f"module.{name}": value for name, value in state.items()}
    torch.save({"state_dict": theirs, "epoch": 3}, tmp_path / "theirs.pt")
    suspect = resolve(Request("preact_resnet_tiny", tmp_path / "theirs.pt", 3, 1))
    assert any("'module.'" in note for note in suspect.notes)
    with torch.no_grad():
        suspect.model.inner.head.weight += 0.5
    written = load_file(suspect.save(suspect.model, tmp_path))
    assert written.keys() == theirs.keys()
    for name, value in theirs.items():
        assert written[name].dtype == value.dtype
        assert torch.equal(written[name], value) == (name != "module.head.weight")


def test_a_tensor_that_the_dtype_of_the_file_cannot_hold_stays_wide(tmp_path):
    torch.save(make_model("preact_resnet_tiny", 3, 1).half().state_dict(), tmp_path / "w.pt")
    suspect = resolve(Request("preact_resnet_tiny", tmp_path / "w.pt", 3, 1))
    with torch.no_grad():
        suspect.model.inner.head.weight += 1e6
    written = load_file(suspect.save(suspect.model, tmp_path))
    assert written["head.weight"].dtype == torch.float32
    assert written["head.bias"].dtype == torch.float16


def test_a_model_without_a_weight_file_is_refused(request_):
    with pytest.raises(ValueError, match="--checkpoint"):
        resolve(replace(request_, checkpoint=None))


def test_samples_that_do_not_tell_the_number_of_classes_are_refused(request_):
    with pytest.raises(ValueError, match="needs labelled images"):
        resolve(replace(request_, classes=None))


def test_weights_of_another_model_are_refused(request_, tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="does not fit the model"):
        resolve(replace(request_, checkpoint=tmp_path / "other.safetensors"))
