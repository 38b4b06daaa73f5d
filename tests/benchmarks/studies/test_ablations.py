"""Study of ablations: one change per point, on seeds and samples of their own."""

import pytest

from benchmarks.studies import ablations
from d3fast.benchmark.plan import plan_jobs
from d3fast.benchmark.presets import BENCHMARK_PRESETS
from d3fast.detox import D3Config
from d3fast.results.store import Results

SEEDS = range(ablations.FIRST_SEED, ablations.FIRST_SEED + ablations.SEEDS)


@pytest.mark.parametrize("data", ablations.BENCHES)
def test_it_runs_on_seeds_that_no_table_shows(data):
    plan = plan_jobs(ablations.ablation_preset(data, "blended"), SEEDS)
    assert not set(SEEDS) & set(range(BENCHMARK_PRESETS["cpu"].seeds))
    assert {p.job.seed for p in plan.repairs} == set(SEEDS)
    assert {p.job.suspect.spec.data for p in plan.repairs} == {data}
    assert not plan.tests


def test_a_point_of_d3_changes_one_option_and_no_sample():
    for point in ablations.ablation_points((12, 260), target=0):
        if point.factor in ("epsilon", "warm start", "p of the distance", "distance schedule"):
            (options,) = point.defense.options
            assert list(options.values()) == [point.value]
            assert (point.clean, point.shift) == (None, None)


def test_every_factor_holds_the_recipe_itself():
    points = ablations.ablation_points((12, 260), target=0)
    plain = {
        point.factor
        for point in points
        if point.defense.name == "d3"
        and point.defense.all_options(0)[0] == {**vars(D3Config())}
        and point.clean in (None, 260)
        and point.shift is None
    }
    assert plain == {point.factor for point in points} - {"kind of samples"}


def test_samples_change_for_all_lines_and_the_target_class_is_rare_once():
    points = ablations.ablation_points((12, 260), target=3)
    for factor in ("clean samples", "kind of samples"):
        own = [point for point in points if point.factor == factor]
        labels = ("d3", "d3-auto", "fine-tuning")
        first, *others = [[p.value for p in own if p.defense.label == name] for name in labels]
        assert first
        assert others == [first, first]
    rare = {p.value: p.shift.rare_class for p in points if p.shift and not p.shift.corruption}
    assert rare == {"a tenth of the target class": 3, "a tenth of another class": 0}


def test_unknown_data_are_refused():
    with pytest.raises(ValueError, match="data must be one of 'digits', 'fashion-mnist', got 'x'"):
        ablations.ablation_preset("x", "badnets")


def test_the_table_has_the_factors_of_which_several_values_were_measured():
    def row(factor, value, **numbers):
        labels = {"kind": "repair", "defense": "d3", "ablation": {"factor": factor, "value": value}}
        return {**labels, "seed": 100, "refused": None, "acc": 0.9, **numbers}

    rows = [row("epsilon", 0.1), row("epsilon", 0.3), row("p", 2.0)]
    table = ablations.ablations_table(Results("study", {}, rows))
    assert "d3: epsilon" in table
    assert "d3: p" not in table
