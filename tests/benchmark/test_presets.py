"""The presets of the benchmark and of the demo."""

import json
from dataclasses import asdict, replace

import pytest

from d3fast.benchmark.attack_jobs import ATTACK_PRESETS, AttackJob
from d3fast.benchmark.plan import plan_jobs
from d3fast.benchmark.presets import BENCHMARK_PRESETS, DEMO_PRESETS, options_of
from d3fast.benchmark.repair_jobs import DefenseSpec
from d3fast.defenses import DEFENSES
from d3fast.detox import D3Config
from d3fast.models import make_model
from d3fast.optim import param_groups
from d3fast.results.jobs import key_of

CPU, PAPER = BENCHMARK_PRESETS["cpu"], BENCHMARK_PRESETS["paper"]


@pytest.mark.parametrize("preset", BENCHMARK_PRESETS.values(), ids=BENCHMARK_PRESETS)
def test_every_preset_can_be_spelled_out_and_written_down(preset):
    whole = plan_jobs(preset, range(2))
    assert whole.clean_models
    assert whole.repairs
    lines = [(key_of(p.job), str(p.labels)) for p in whole.all]
    assert len(set(lines)) == len(lines)
    json.dumps(asdict(preset), allow_nan=False)


@pytest.mark.parametrize("preset", [CPU, PAPER], ids=["cpu", "paper"])
def test_every_registered_defence_stands_in_the_presets_that_compare_them_all(preset):
    without_base = set(DEFENSES) - {"fine-mixing"}  # suspects are trained from random weights
    assert {defense.name for defense in preset.defenses} >= without_base
    assert plan_jobs(preset, [0]).relearning


def test_the_transformers_preset_pushes_layers_that_it_has():
    preset = BENCHMARK_PRESETS["vit"]
    (group,) = preset.suspects
    model = make_model(group.base.model, 10, 1)
    tracked = {
        options["track"]
        for line in preset.defenses
        for options in line.options
        if "track" in options
    }
    assert len(tracked) == 2
    for track in tracked:
        assert param_groups(model, track=track)[0]["params"]


def test_the_suspects_of_the_cpu_preset_are_those_of_the_benchmark_of_attacks():
    attacks = ATTACK_PRESETS["cpu"]
    made = {key_of(p.job) for p in plan_jobs(CPU, range(3)).suspects}
    for name, adaptive in attacks.attacks:
        assert key_of(AttackJob(attacks.spec(2, name, adaptive))) in made


def test_the_options_of_a_configuration_make_that_configuration():
    config = D3Config.authors(epochs=7)
    assert DefenseSpec("d3", (options_of(config),)).build(3).config == replace(config, seed=3)


@pytest.mark.parametrize("name", DEMO_PRESETS)
def test_presets_compare_repairs_at_the_same_rate_and_twice_that_rate(name):
    preset = DEMO_PRESETS[name]
    same, faster, d3 = (defense.build(seed=1) for defense in preset.defenses)
    assert preset.suspects[0].base.data == name
    assert (same.lr, same.epochs) == (d3.config.lr, d3.config.epochs)
    assert (faster.lr, faster.epochs) == (2 * same.lr, same.epochs)
    assert preset.clean == preset.suspects[0].base.clean


def test_the_demo_is_a_preset_of_the_benchmark():
    assert BENCHMARK_PRESETS["demo"] is DEMO_PRESETS["digits"]
