"""Training and measuring a backdoored model, without running a benchmark."""

from dataclasses import replace

import pytest
import torch

from d3fast import evaluate
from d3fast.attacks import load_attack
from d3fast.benchmark.implant import (
    implant,
    prepare_attack,
    save_suspect,
    train_model,
)
from d3fast.models import load_weights
from tests.benchmark.small import small_spec

SPEC = small_spec(epochs=2, train=200, clean=20, attack="badnets", batch_size=32, lr=0.1)


@pytest.fixture(scope="module")
def splits():
    return SPEC.splits()


@pytest.fixture(scope="module")
def clean(splits):
    return train_model(SPEC, splits, None, progress=False)[0]


@pytest.fixture(scope="module")
def result(splits, clean):
    return implant(SPEC, splits, clean, progress=False)


def test_the_result_holds_the_metrics_of_both_models(splits, clean, result):
    test = splits.test.batches(1000)
    assert result.clean == evaluate(clean, test, result.attack)
    assert result.measured == evaluate(result.model, test, result.attack)


def test_a_row_compares_the_model_with_the_clean_model(result):
    row = result.row(SPEC)
    assert row.floor == result.clean.asr
    assert row.ra_ceiling == result.clean.ra
    assert row.asr_excess == row.asr - row.floor
    assert row.acc_loss == result.clean.acc - row.acc
    assert (row.attack, row.target, row.refused) == ("badnets", 0, None)


def test_without_a_clean_model_a_row_has_no_floor(splits):
    row = implant(SPEC, splits, None, progress=False).row(SPEC)
    assert row.refused is None
    assert not {"floor", "ra_ceiling", "asr_excess", "acc_loss"} & row.to_row().keys()


def test_with_ratio_0_the_suspect_is_the_clean_model(splits, clean):
    result = implant(replace(SPEC, ratio=0.0), splits, clean, progress=False)
    assert result.model is not clean
    for ours, theirs in zip(result.model.parameters(), clean.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert (result.measured, result.seconds) == (result.clean, 0.0)


def test_a_floor_violation_ends_before_the_training(splits, clean, monkeypatch):
    monkeypatch.setattr("d3fast.training.metrics.MAX_FLOOR", -1.0)
    refused = implant(SPEC, splits, clean, progress=False)
    assert refused.model is refused.measured is None
    row = refused.row(SPEC)
    assert row.refused == refused.violation
    assert "target 0" in row.refused
    assert "acc" not in row.to_row()


def test_the_same_seed_gives_the_same_initial_model_and_another_seed_another(splits):
    first, again = (SPEC.initial_model(splits).head.weight for _ in range(2))
    other = replace(SPEC, seed=1).initial_model(splits).head.weight
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_target_of_the_spec_replaces_that_of_the_recipe(splits):
    attack, seconds = prepare_attack(replace(SPEC, target=3), splits, progress=False)
    assert attack.target == 3
    assert seconds >= 0


def test_model_and_trigger_are_read_back(splits, result, tmp_path):
    save_suspect(result.model, result.attack, SPEC, tmp_path / "made")
    model = SPEC.initial_model(splits)
    load_weights(model, tmp_path / "made.safetensors")
    assert torch.equal(model.head.weight, result.model.head.weight)
    assert load_attack(tmp_path / "made.trigger.safetensors") == result.attack


@pytest.mark.parametrize(
    ("option", "value"), [("ratio", -0.5), ("seed", -1), ("clean", -1), ("train", -1), ("size", 0)]
)
def test_a_number_out_of_range_is_named(option, value):
    with pytest.raises(ValueError, match=rf"{option} .*got {value}"):
        replace(SPEC, **{option: value})
