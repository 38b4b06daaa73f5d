"""Some weights of a base model: those asked for, checked, and nothing else."""

import pytest
import torch
from safetensors.torch import save_file

from d3fast.io.base_weights import read_weights

WANTED = {"up.weight": torch.zeros(2, 3), "up.mean": torch.zeros(2)}
GIVEN = {"up.weight": torch.arange(6.0).reshape(2, 3), "up.mean": torch.ones(2)}
OTHERS = {"head.weight": torch.zeros(1000, 2), "stem.weight": torch.zeros(1)}


@pytest.mark.parametrize("form", ["safetensors", "torch", "nested", "prefixed"])
def test_the_file_may_hold_more_and_nest_it(tmp_path, form):
    held = {**OTHERS, **GIVEN}
    if form == "safetensors":
        file = tmp_path / "base.safetensors"
        save_file(held, file)
    else:
        file = tmp_path / "base.pth"
        if form == "prefixed":
            held = {f"module.{name}": value for name, value in held.items()}
        torch.save({"state_dict": held} if form == "nested" else held, file)
    read = read_weights(file, WANTED)
    assert read.keys() == WANTED.keys()
    assert all(torch.equal(read[name], GIVEN[name]) for name in read)


def test_an_encoder_alone_is_found_by_names_without_its_place_in_the_classifier(tmp_path):
    save_file({**OTHERS, **GIVEN}, tmp_path / "encoder.safetensors")
    wanted = {f"bert.{name}": value for name, value in WANTED.items()}
    wanted["bert.stem.weight"] = torch.zeros(1)  # so that "bert." is all they share
    read = read_weights(tmp_path / "encoder.safetensors", wanted)
    assert torch.equal(read["bert.up.weight"], GIVEN["up.weight"])


def test_a_half_precision_base_is_widened(tmp_path):
    save_file({name: value.half() for name, value in GIVEN.items()}, tmp_path / "b.safetensors")
    assert read_weights(tmp_path / "b.safetensors", WANTED)["up.mean"].dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"up.mean": None}, r"b\.safetensors has no weight 'up\.mean' of the model"),
        ({"up.mean": torch.ones(3)}, r"'up\.mean' has shape \(3,\), the model's \(2,\)"),
        ({"up.mean": torch.ones(2).long()}, r"'up\.mean' is torch\.int64, the model's"),
        ({"up.mean": torch.tensor([0.0, torch.nan])}, r"'up\.mean' holds NaN or inf"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, change, error):
    held = {name: value for name, value in {**GIVEN, **change}.items() if value is not None}
    save_file(held, tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match=error):
        read_weights(tmp_path / "b.safetensors", WANTED)


def test_code_in_the_file_is_refused(tmp_path):
    torch.save({"up.weight": print}, tmp_path / "b.pth")
    with pytest.raises(ValueError, match=r"b\.pth"):
        read_weights(tmp_path / "b.pth", WANTED)
