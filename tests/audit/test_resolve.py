"""A case: one suspect, its clean samples, the same two parts of them for every command."""

import hashlib

import numpy as np
import pytest
import torch

from d3fast.audit.resolve import open_audit
from d3fast.detox import save_weights
from d3fast.hub import Request
from d3fast.models import make_model


@pytest.fixture
def files(tmp_path):
    draws = np.random.default_rng(0)
    np.savez(
        tmp_path / "clean.npz",
        images=draws.integers(0, 256, (40, 8, 8), np.uint8),
        labels=np.arange(40) % 4,
    )
    save_weights(make_model("preact_resnet_tiny", 4, 1), tmp_path / "suspect.safetensors")
    suspect = Request("preact_resnet_tiny", tmp_path / "suspect.safetensors")
    return suspect, tmp_path / "clean.npz"


def test_the_model_has_the_files_weights_and_is_in_eval_mode(files):
    case = open_audit(*files, device="cpu")
    again = open_audit(*files, device="cpu")
    assert not case.model.training
    for one, other in zip(case.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_it_knows_the_hash_of_its_file_and_no_folder(files):
    case = open_audit(*files, device="cpu")
    assert case.settings()["sha256"] == hashlib.sha256(files[0].checkpoint.read_bytes()).hexdigest()
    assert case.settings()["checkpoint"] == "suspect.safetensors"


def test_the_parts_are_disjoint_complete_stratified_and_the_same_again(files):
    case = open_audit(*files, device="cpu")
    repair, held_out = case.parts(0.2)
    assert held_out.labels.bincount().tolist() == [2, 2, 2, 2]
    both = torch.cat([repair.images, held_out.images]).flatten(1)
    assert len(both.unique(dim=0)) == 40
    again = open_audit(*files, device="cpu").parts(0.2)[1]
    assert torch.equal(held_out.images, again.images)
    other = open_audit(*files, device="cpu", seed=1).parts(0.2)[1]
    assert not torch.equal(held_out.images, other.images)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001])
def test_a_share_that_leaves_a_part_empty_is_refused(files, share):
    case = open_audit(*files, device="cpu")
    with pytest.raises(ValueError, match="cannot be split"):
        case.parts(share)


def test_a_model_for_other_classes_is_refused(files, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("0\n1\n2\n3\n4\n")
    with pytest.raises(ValueError, match="does not fit the model"):
        open_audit(*files, classes=names, device="cpu")
