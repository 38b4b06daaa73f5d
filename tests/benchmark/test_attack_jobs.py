"""The benchmark of attacks, made small: jobs, files and floor violations."""

from dataclasses import replace

import pytest
import torch

from d3fast import evaluate
from d3fast.attacks import ADAPTIVE, ATTACKS, load_attack
from d3fast.attacks.recipes import RECIPES
from d3fast.benchmark.attack_jobs import (
    ATTACK_PRESETS,
    AttackJob,
    AttackPreset,
    parse_attacks,
    run_attacks,
)
from d3fast.models import load_weights
from d3fast.results.jobs import RunDir, key_of
from tests.benchmark.small import small_spec

SMALL = AttackPreset(
    small_spec(epochs=3, train=300, batch_size=32, lr=0.1),
    attacks=(("badnets", None), ("badnets", "distance-aware")),
)


def run(folder, preset=SMALL, seeds=(0,), **options):
    return run_attacks(preset, RunDir(folder), seeds=seeds, progress=False, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    return folder, run(folder)


def test_there_is_a_row_for_the_clean_model_and_for_every_attack(done):
    rows = done[1]
    assert [(row.attack, row.adaptive) for row in rows] == [
        ("clean", None),
        ("badnets", None),
        ("badnets", "distance-aware"),
    ]
    clean, badnets, _ = rows
    assert badnets.acc_loss == pytest.approx(clean.acc - badnets.acc)
    assert badnets.asr_excess == pytest.approx(badnets.asr - badnets.floor)
    assert badnets.asr > 0.5 > badnets.floor
    assert badnets.refused is None


def test_model_and_trigger_that_were_kept_give_the_numbers_of_the_row(done):
    folder, rows = done
    job = AttackJob(SMALL.spec(0, "badnets", None))
    splits = job.spec.splits()
    model = job.spec.initial_model(splits)
    load_weights(model, f"{job.stem(folder)}.safetensors")
    attack = load_attack(f"{job.stem(folder)}.trigger.safetensors")
    measured = evaluate(model, splits.test.batches(1000), attack)
    for key in ("correct", "images", "hits", "robust", "triggered"):
        assert getattr(measured, key) == getattr(rows[1], key)


def test_a_second_run_trains_nothing(done, monkeypatch):
    def trains(*_, **__):
        raise AssertionError("a finished job was run again")

    monkeypatch.setattr(AttackJob, "run", trains)
    folder, rows = done
    assert run(folder) == rows


def test_a_trigger_that_a_clean_model_answers_is_refused_before_training(done, monkeypatch):
    folder = done[0]
    white = {**RECIPES["digits"], "blended": {"target": 1, "alpha": 1.0}}
    monkeypatch.setattr("d3fast.attacks.registry.RECIPES", {**RECIPES, "digits": white})
    answers = []
    for target in range(10):  # whatever it answers on a blank pattern, that is the target
        white["blended"] = {"target": target, "alpha": 1.0}
        jobs = replace(SMALL, attacks=(("blended", None),), base=replace(SMALL.base, target=target))
        row = run(folder, jobs)[-1]
        if row.refused:
            answers.append((row, AttackJob(jobs.spec(0, "blended", None))))
    (row, job), *others = answers
    assert not others
    assert "the trigger measures nothing with target" in row.refused
    assert row.floor == 1.0
    assert row.acc is None
    assert not job.stem(folder).with_suffix(".safetensors").exists()


def test_another_recipe_is_another_cell(monkeypatch):
    spec = SMALL.spec(0, "badnets", None)
    before = key_of(AttackJob(spec))
    larger = {**RECIPES["digits"], "badnets": {"target": 0, "size": 3, "margin": 0}}
    monkeypatch.setattr("d3fast.attacks.registry.RECIPES", {**RECIPES, "digits": larger})
    assert key_of(AttackJob(spec)) != before


def test_every_attack_of_every_preset_can_be_made():
    for preset in ATTACK_PRESETS.values():
        for name, adaptive in preset.attacks:
            assert preset.spec(0, name, adaptive).make_attack().target >= 0


def test_attacks_are_named_with_their_adaptive_attacker():
    assert parse_attacks("badnets, wanet+sam-1") == (("badnets", None), ("wanet", "sam-1"))
    with pytest.raises(ValueError, match=r"attack must be one of 'badnets', .*, got 'bad'"):
        parse_attacks("bad")
    with pytest.raises(ValueError, match=r"adaptive must be one of 'sam-1', .*, got 'sam'"):
        parse_attacks("badnets+sam")


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("adaptive", [None, *ADAPTIVE])
def test_every_attack_can_be_implanted_by_every_attacker(tmp_path, name, adaptive, monkeypatch):
    short = {
        "low-frequency": {"target": 1, "steps": 2, "surrogate_epochs": 1},
        "input-aware": {"target": 1, "mask_steps": 2, "width": 2},
        "ssba": {"target": 1, "steps": 2},
        "narcissus": {"target": 1, "steps": 2, "surrogate_epochs": 1},
    }
    digits = {key: short.get(key, {"target": 1}) for key in ATTACKS} | {
        "badnets": {"target": 1, "size": 2, "margin": 0}
    }
    monkeypatch.setattr("d3fast.attacks.registry.RECIPES", {**RECIPES, "digits": digits})
    monkeypatch.setattr("d3fast.training.metrics.MAX_FLOOR", 100.0)
    rows = run(tmp_path, AttackPreset(small_spec(batch_size=32), ((name, adaptive),)))
    assert rows[-1].attack == name
    assert 0 <= rows[-1].asr <= 1
    trigger = next((tmp_path / "models").glob("*.trigger.safetensors"))
    assert load_attack(trigger).trigger(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 8, 8)
