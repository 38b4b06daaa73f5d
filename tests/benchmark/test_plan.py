"""From a preset to its jobs, and changes of a preset."""

from dataclasses import replace

import pytest

from d3fast.attacks import TrainConfig
from d3fast.benchmark.clean_shift import CleanShift
from d3fast.benchmark.plan import (
    Ablation,
    BenchmarkPreset,
    plan_jobs,
    replace_suspects,
    select_defenses,
)
from d3fast.benchmark.presets import BENCHMARK_PRESETS
from d3fast.benchmark.repair_jobs import DefenseSpec
from d3fast.data import AUGMENTATIONS
from d3fast.results.jobs import key_of

CPU, PAPER = BENCHMARK_PRESETS["cpu"], BENCHMARK_PRESETS["paper"]


def test_a_preset_takes_another_data_set_and_one_model_for_all():
    changed = replace_suspects(PAPER, data="fashion-mnist", model="preact_resnet_narrow")
    (group,) = changed.suspects
    assert (group.base.data, group.base.model) == ("fashion-mnist", "preact_resnet_narrow")
    assert group.base.training.augment == AUGMENTATIONS["fashion-mnist"]
    job = plan_jobs(changed, [0]).repairs[0].job
    assert job.augment == AUGMENTATIONS["fashion-mnist"]


def test_without_augmentation_nothing_is_augmented():
    plain = replace(CPU, augment=False)
    assert all(p.job.augment is None for p in plan_jobs(plain, [0]).repairs)


def test_a_repair_may_have_its_own_say_about_augmentation():
    lines = (DefenseSpec("d3"), DefenseSpec("d3", label="without", augment=False))
    jobs = [p.job for p in plan_jobs(replace(CPU, defenses=lines), [0]).repairs]
    assert [job.augment for job in jobs[:2]] == [AUGMENTATIONS["fashion-mnist"], None]


def test_fewer_defences_may_be_run_on_adaptive_attacks():
    lines = (DefenseSpec("d3"), DefenseSpec("fine-tuning"))
    small = replace(CPU, defenses=lines, against_adaptive=("d3",))
    jobs = [p.job for p in plan_jobs(small, [0]).repairs]
    assert {c.defense for c in jobs if c.suspect.spec.adaptive} == {"d3"}
    assert {c.defense for c in jobs if not c.suspect.spec.adaptive} == {"d3", "fine-tuning"}


def test_some_attacks_alone():
    changed = replace_suspects(PAPER, attacks=(("badnets", None), ("sig", None)))
    assert all(group.attacks == (("badnets", None), ("sig", None)) for group in changed.suspects)
    assert changed.ablated == changed.relearning == changed.reactivation == (("badnets", None),)


def test_models_without_poisoned_samples_keep_the_attacks_that_need_no_training():
    changed = replace_suspects(CPU, attacks=(("badnets", None), ("input-aware", None)))
    assert [(g.base.ratio > 0, len(g.attacks)) for g in changed.suspects] == [(True, 2), (False, 1)]
    only = replace_suspects(CPU, attacks=(("input-aware", None),))
    assert [group.base.ratio > 0 for group in only.suspects] == [True]


def test_some_defences_alone():
    assert [r.label for r in select_defenses(PAPER, ["d3-paper", "d3"]).defenses] == [
        "d3-paper",
        "d3",
    ]
    with pytest.raises(ValueError, match=r"defence must be one of 'fine-tuning', .*, got 'd4'"):
        select_defenses(PAPER, ["d4"])
    with pytest.raises(ValueError, match="defence 'math:sqrt' must be a dataclass of options"):
        select_defenses(PAPER, ["math:sqrt"])


def test_a_defence_that_is_named_runs_on_adaptive_attacks_too():
    only = replace_suspects(CPU, attacks=(("badnets", "abi"),))
    assert CPU.against_adaptive is not None
    assert "anp" not in CPU.against_adaptive
    (repair,) = plan_jobs(select_defenses(only, ["anp"]), [0]).repairs
    assert repair.labels["defense"] == "anp"


def test_a_defence_that_the_preset_lacks_runs_with_its_defaults():
    demo = BENCHMARK_PRESETS["demo"]
    names = ["d3fast.defenses:SAU", "ft-sam", "fine-tuning+d3fast.defenses:SAU"]
    chosen = select_defenses(demo, ["D3", *names]).defenses
    assert [defense.label for defense in chosen] == ["D3", *names]
    assert chosen[2].all_options(0) == DefenseSpec("ft-sam").all_options(0)


def test_presets_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="labels of defences must differ"):
        replace(CPU, defenses=(DefenseSpec("d3"), DefenseSpec("d3")))
    with pytest.raises(ValueError, match="3000 images kept aside are too few for 3001 samples"):
        replace(CPU, clean=3001)
    with pytest.raises(ValueError, match="too few for 3001 samples"):
        replace(CPU, ablations=(Ablation("clean", 1.0, DefenseSpec("d3"), clean=3001),))
    with pytest.raises(ValueError, match="2950 samples and 100 of the relearning test"):
        replace(CPU, clean=2950)
    assert isinstance(replace(CPU, clean=2950, relearning=()), BenchmarkPreset)
    taught = (DefenseSpec("d3", unlabelled=2_001),)
    with pytest.raises(ValueError, match="too few for 1000 samples and 2001 without labels"):
        replace(CPU, defenses=taught)
    with pytest.raises(ValueError, match="3000 samples and 1 of the re-activation test"):
        replace(CPU, clean=3000, relearning=())


def test_every_model_of_an_attack_takes_the_reactivation_test():
    small = replace(
        CPU,
        defenses=(DefenseSpec("d3"), DefenseSpec("fst")),
        relearning=(),
        reactivation=(("blended", None),),
    )
    plan = plan_jobs(small, [0, 1])
    tested = [(p.suspect.spec.attack, p.labels["defense"]) for p in plan.reactivation]
    assert tested == 2 * [("blended", name) for name in ("clean model", "none", "d3", "fst")]
    assert {p.labels["kind"] for p in plan.tests} == {"reactivation"}
    parts = [plan.part(number, 3).reactivation for number in (1, 2, 3)]
    assert sorted(p.job.name for part in parts for p in part) == sorted(
        p.job.name for p in plan.reactivation
    )


def test_run_directories_of_release_0_1_are_continued():
    # That release trained in bf16.
    training = TrainConfig(epochs=10, precision="bf16", channels_last=True)
    plain = CPU.suspects[0]
    then = replace(plain, base=replace(plain.base, training=training))
    whole = plan_jobs(replace(CPU, suspects=(then,), reactivation=()), [0])
    first = {type(p.job).__name__: key_of(p.job) for p in reversed(whole.all)}
    assert first == {
        "CleanJob": "fashion-mnist-seed0-clean-357381e194",
        "AttackJob": "fashion-mnist-seed0-badnets-ab9c5e7735",
        "RepairJob": "fashion-mnist-seed0-badnets-fine-tuning-f9379105e5",
        "RelearningJob": "fashion-mnist-seed0-badnets-relearning-clean-5be371dacb",
    }


def test_shifted_samples_are_another_job_and_those_of_a_point_are_its_own():
    rare, noisy = CleanShift(rare_class=1), CleanShift(corruption="noise")
    preset = replace(
        CPU,
        shift=rare,
        defenses=(DefenseSpec("d3"),),
        ablations=(Ablation("samples", "noise", DefenseSpec("d3"), shift=noisy),),
        ablated=(("badnets", None),),
        relearning=(),
        reactivation=(),
    )
    jobs = [p.job for p in plan_jobs(preset, [0]).repairs if not p.job.suspect.spec.adaptive]
    assert {job.shift for job in jobs} == {rare, noisy}
    plain = plan_jobs(replace(preset, shift=None), [0]).repairs[0].job
    assert key_of(plain) != key_of(jobs[0])
