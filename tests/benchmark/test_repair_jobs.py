"""One job of the grid: what a defence is given, what the row says, and when it is another job."""

import inspect
import pickle
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from d3fast import evaluate
from d3fast.benchmark import repair_jobs as repairs
from d3fast.benchmark.attack_jobs import AttackJob, AttackPreset, run_attacks, why_no_suspect
from d3fast.benchmark.clean_shift import CleanShift
from d3fast.benchmark.repair_jobs import (
    DefenseSpec,
    RepairJob,
    load_suspect,
    repair_model,
)
from d3fast.data import Augment
from d3fast.defenses import D3, DEFENSES, FineTuning, Pipeline
from d3fast.defenses.base import DefenseResult
from d3fast.results.jobs import RunDir, key_of, settings_of
from d3fast.results.schema.benchmark import AttackRow
from d3fast.runtime.plugins import Registry
from d3fast.training.metrics import der
from tests.benchmark.small import learned_spec
from tests.plugins import install, site

__all__ = ["site"]

SUSPECTS = AttackPreset(learned_spec(), (("badnets", None),))
SUSPECT = AttackJob(SUSPECTS.spec(0, "badnets", None))


def job(repair=None, suspect=SUSPECT, clean=50, **options):
    repair = repair or DefenseSpec("fine-tuning", ({"epochs": 1},))
    every = repair.all_options(suspect.spec.seed)
    return RepairJob(suspect, repair.name, every, clean, batch_size=25, **options)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repairs")
    run_attacks(SUSPECTS, RunDir(folder), seeds=[0], progress=False)
    return RunDir(folder)


@dataclass(frozen=True)
class Spy:
    """A defence that notes what it is given and gives the model back."""

    seen: list
    error_text: str = ""

    def __call__(self, model, clean_train, clean_val, *, device=None, progress=True):
        self.seen.append((model, list(clean_train), list(clean_val), device, progress))
        if self.error_text:
            raise ValueError(self.error_text)
        return DefenseResult(model, (), 0.5)


@pytest.fixture
def spy(monkeypatch):
    def install(error_text=""):
        made = Spy([], error_text)
        monkeypatch.setattr(repairs, "make_defense", lambda name, options, *_: made)
        return made

    return install


def _keys(images):
    return {image.numpy().tobytes() for image in images}


def test_the_row_says_what_the_repair_left(run_dir):
    fine_tuning = job()
    row = fine_tuning.run(replace(run_dir, keep=frozenset({key_of(fine_tuning)})), False)
    splits = SUSPECT.spec.splits()
    model, attack = load_suspect(SUSPECT, splits, run_dir.folder)
    before = evaluate(model, splits.test.batches(1000), attack)
    repairs.load_weights(model, fine_tuning.weights(run_dir.folder))
    after = evaluate(model, splits.test.batches(1000), attack)
    assert after.as_dict().items() <= row.items()
    assert row["asr_excess"] == pytest.approx(after.asr - row["floor"])
    assert row["acc_loss"] == pytest.approx(before.acc - after.acc)
    assert row["der"] == pytest.approx(der(before, after))
    assert (row["attack"], row["seed"], row["clean"], row["epochs"]) == ("badnets", 0, 50, 1)
    assert row["refused"] is None
    assert 0 <= row["val_accuracy"] <= 1


def test_the_row_has_what_the_defence_chose(run_dir):
    searched = {"epochs": 1, "restart": "auto", "max_acc_drop": 100.0, "distillation": 0.2}
    row = job(DefenseSpec("d3", (searched,))).run(run_dir, False)
    assert row["chosen"] == {"restart": 2}
    assert job().run(run_dir, False)["chosen"] is None


def test_a_model_is_kept_only_if_asked(run_dir):
    thrown_away = job(clean=49)
    thrown_away.run(run_dir, False)
    assert not thrown_away.weights(run_dir.folder).exists()


def test_two_runs_give_the_same_row(run_dir):
    augmented = job(DefenseSpec("d3", ({"epochs": 2},)), augment=Augment(crop=1))
    first, second = (augmented.run(run_dir, False) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_a_defence_gets_the_suspect_and_the_defenders_samples_alone(run_dir, spy):
    spied = spy()
    job(clean=50, held_out=0.2).run(run_dir, False)
    ((model, train, val, _, _),) = spied.seen
    splits = SUSPECT.spec.splits()
    suspect, attack = load_suspect(SUSPECT, splits, run_dir.folder)
    pairs = zip(model.state_dict().values(), suspect.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    given = _keys(torch.cat([images for images, _ in train + val]))
    assert sum(len(labels) for _, labels in train) == 40
    assert sum(len(labels) for _, labels in val) == 10
    as_floats = {name: getattr(splits, name).images.float() / 255 for name in ("clean", "test")}
    assert given <= _keys(as_floats["clean"])
    assert not given & _keys(as_floats["test"])
    triggered = attack.trigger(torch.cat(list(as_floats.values())))
    assert not given & _keys(triggered)


def test_shifted_samples_are_shifted_for_training_and_choices_alike(run_dir, spy):
    spied = spy()
    job(clean=50, held_out=0.4, shift=CleanShift(rare_class=3, corruption="contrast")).run(
        run_dir, False
    )
    ((_, train, val, _, _),) = spied.seen
    clean = SUSPECT.spec.splits().clean
    for batches, rare in ((train, 1), (val, 1)):
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        assert int((labels == 3).sum()) == rare
        assert not _keys(images) & _keys(clean.images.float() / 255)
        assert float(images.amax() - images.amin()) < 0.7


def test_nothing_but_model_samples_and_how_to_pass_them_can_reach_a_defence():
    parameters = inspect.signature(repair_model).parameters
    assert list(parameters) == [
        "defense",
        "model",
        "clean_train",
        "clean_val",
        "batch_size",
        "augment",
        "seed",
        "device",
        "progress",
    ]


def test_every_pass_has_its_own_order_and_all_images(spy):
    data = SUSPECT.spec.splits().clean
    passes = []

    def twice(model, clean_train, clean_val, **_):
        passes.extend(list(clean_train) for _ in range(2))

    repair_model(
        twice,
        nn.Identity(),
        data,
        None,
        batch_size=50,
        augment=None,
        seed=0,
        device=torch.device("cpu"),
        progress=False,
    )
    first, second = (torch.cat([images for images, _ in batches]) for batches in passes)
    assert not torch.equal(first, second)
    assert _keys(first) == _keys(second)


def test_a_defence_that_cannot_work_on_a_model_gives_a_row_that_says_so(run_dir, spy):
    spy("this defence needs batch norm")
    row = job().run(run_dir, False)
    assert row["refused"] == "this defence needs batch norm"
    assert "acc" not in row
    assert row["floor"] is not None


def test_a_refused_suspect_is_not_repaired(run_dir, spy, monkeypatch):
    spied = spy()
    refused = AttackRow(
        seed=0, attack="badnets", refused="the trigger measures nothing", floor=0.5, ra_ceiling=0.4
    )
    monkeypatch.setattr(repairs, "finished_row", lambda job, folder: refused.to_row())
    row = job().run(run_dir, False)
    assert row["refused"] == "no suspect: the trigger measures nothing"
    assert not spied.seen
    suspect = repairs.suspect_row(SUSPECT, refused)
    assert suspect["refused"] == "the trigger measures nothing"


@pytest.mark.parametrize("asr", [0.0, 0.14])
def test_a_model_that_did_not_learn_its_trigger_is_no_suspect(run_dir, spy, monkeypatch, asr):
    spied = spy()
    weak = AttackRow(seed=0, attack="badnets", ratio=0.1, asr=asr, floor=0.1, acc=0.9)
    monkeypatch.setattr(repairs, "finished_row", lambda job, folder: weak.to_row())
    why = f"did not learn the trigger (ASR {100 * asr:.1f} %, of the clean model 10.0 %)"
    assert job().run(run_dir, False)["refused"].endswith(why)
    assert not spied.seen
    assert repairs.suspect_row(SUSPECT, weak)["refused"] == f"the model {why}"


def test_a_model_that_nobody_poisoned_is_repaired():
    never = AttackRow(seed=0, attack="badnets", ratio=0.0, asr=0.1, floor=0.1)
    assert why_no_suspect(never) is None


def test_a_suspect_that_was_not_made_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"badnets has to be run before .*-fine-tuning"):
        job().run(RunDir(tmp_path), False)


@pytest.mark.parametrize(
    "changed",
    [
        job(DefenseSpec("fine-tuning", ({"epochs": 2},))),
        job(DefenseSpec("d3", ({"epochs": 1},))),
        job(clean=51),
        job(held_out=0.3),
        job(augment=Augment(crop=1)),
        job(suspect=AttackJob(replace(SUSPECT.spec, ratio=0.2))),
        job(suspect=AttackJob(replace(SUSPECT.spec, seed=1))),
    ],
)
def test_whatever_a_result_depends_on_makes_another_cell(changed):
    assert key_of(changed) != key_of(job())


def test_a_changed_default_is_another_cell(monkeypatch):
    @dataclass(frozen=True)
    class Changed:
        epochs: int = 1
        lr: float = 0.05
        momentum: float = 0.9
        weight_decay: float = 5e-4

    before = key_of(job())
    changed = {**DEFENSES.builtin, "fine-tuning": Changed}
    monkeypatch.setattr(repairs, "DEFENSES", Registry("defence", "d3fast.defenses", changed))
    assert key_of(job()) != before


def test_another_version_of_a_package_is_another_job(site, tmp_path, monkeypatch):
    made = {"mine": "from d3fast.defenses import FineTuning as Mine\n"}
    points = {"d3fast.defenses": {"mine": "mine:Mine"}, "d3fast.attacks": {"mark": "mine:Mark"}}
    keys = []
    for version in ("1.0", "2.0"):
        folder = install(tmp_path / version, "other", points, version=version, **made)
        monkeypatch.syspath_prepend(folder)
        both = job(DefenseSpec("mine+fine-tuning"))
        assert both.plugins == {"defence mine": f"other {version}"}
        assert settings_of(both)["plugins"] == both.plugins
        keys.append(key_of(both))
    assert keys[0] != keys[1]
    assert job().plugins == {}


def test_a_job_with_a_defence_of_a_module_has_a_name_fit_for_a_file():
    repair = job(DefenseSpec("d3fast.defenses:FineTuning"))
    assert repair.name.endswith("-badnets-d3fast.defenses.FineTuning")
    assert list(repair.plugins) == ["defence d3fast.defenses:FineTuning"]


def test_images_without_labels_reach_d3(run_dir):
    line = DefenseSpec("d3", ({"epochs": 1, "distillation": 0.5},))
    plain, more = job(line), job(line, unlabelled=20)
    assert key_of(plain) != key_of(more)
    assert "unlabelled" not in settings_of(plain)
    splits = SUSPECT.spec.splits()
    model, _ = load_suspect(SUSPECT, splits, run_dir.folder)
    cpu = torch.device("cpu")
    repaired = [one.repair(model, splits.clean, cpu, False).model for one in (more, more, plain)]
    first, again, without = (nn.utils.parameters_to_vector(m.parameters()) for m in repaired)
    assert torch.equal(first, again)
    assert not torch.equal(first, without)
    with pytest.raises(ValueError, match="only d3 learns from images without labels, got 'fst'"):
        DefenseSpec("fst", unlabelled=20)
    with pytest.raises(ValueError, match="unlabelled must be an integer >= 1, got 0"):
        DefenseSpec("d3", unlabelled=0)


def test_a_label_is_no_part_of_the_result():
    assert key_of(job(DefenseSpec("d3"))) == key_of(job(DefenseSpec("d3", label="D3 as published")))


@pytest.mark.parametrize("name", [*DEFENSES, "fine-tuning+d3"])
def test_every_defence_of_the_registry_can_be_built_and_sent_to_a_worker(name):
    repair = DefenseSpec(name)
    defense = repair.build(seed=7)
    stages = defense.stages if isinstance(defense, Pipeline) else (defense,)
    for stage, options in zip(stages, repair.all_options(seed=7), strict=True):
        seed = getattr(getattr(stage, "config", stage), "seed", 7)
        assert seed == 7
        assert "on_epoch" not in options
    made = job(repair)
    assert pickle.loads(pickle.dumps(made)) == made
    assert settings_of(made)["defense"] == name


@pytest.mark.parametrize("name", DEFENSES)
def test_a_defence_made_from_its_written_options_is_the_same_defence(name):
    repair = DefenseSpec(name)
    again = repairs.make_defense(name, repair.all_options(seed=0))
    assert again == DEFENSES[name]()
    assert pickle.loads(pickle.dumps(again)) == again


def test_options_of_options_keep_what_is_not_said():
    repair = DefenseSpec("neural-cleanse", ({"inversion": {"steps": 3}},))
    default = DEFENSES["neural-cleanse"]()
    assert repair.build(seed=0).inversion == replace(default.inversion, steps=3)


def test_the_options_of_a_pipeline_go_to_their_stages():
    both = DefenseSpec("fine-tuning+d3", ({"epochs": 3}, {"epochs": 4})).build(seed=0)
    first, second = both.stages
    assert isinstance(first, FineTuning)
    assert isinstance(second, D3)
    assert (first.epochs, second.config.epochs) == (3, 4)


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        (("no-such",), "defence must be one of '.*, got 'no-such'"),
        (("d3", ({"speed": 1},)), "option of d3 must be one of .*, got 'speed'"),
        (("d3", ({"epochs": 0},)), "epochs must be an integer >= 1, got 0"),
        (("d3", ({}, {})), "options must be one mapping per stage of d3, got 2"),
    ],
)
def test_a_repair_that_cannot_be_is_refused(arguments, error_text):
    with pytest.raises(ValueError, match=error_text):
        DefenseSpec(*arguments)


@pytest.mark.parametrize(
    ("options", "error_text"),
    [
        ({"clean": 0}, "clean must be an integer >= 1, got 0"),
        ({"held_out": 1.0}, r"held_out must be < 1, got 1\.0"),
        ({"held_out": -0.1}, r"held_out must be finite and >= 0, got -0\.1"),
    ],
)
def test_numbers_out_of_range_are_refused(options, error_text):
    with pytest.raises(ValueError, match=error_text):
        job(**options)
