"""One job of the relearning test: which images it poisons, and on which it measures."""

import pytest

from d3fast.benchmark import relearning_jobs as relearn
from d3fast.benchmark.attack_jobs import AttackJob, AttackPreset, run_attacks
from d3fast.benchmark.defender import defender_samples
from d3fast.benchmark.relearning import RelearnConfig, Relearning
from d3fast.benchmark.relearning_jobs import RelearningJob
from d3fast.benchmark.repair_jobs import DefenseSpec, RepairJob
from d3fast.results.jobs import RunDir, key_of
from d3fast.training.metrics import Metrics
from tests.benchmark.small import learned_spec

BASE = learned_spec()
PRESET = AttackPreset(BASE, (("badnets", None),))
SUSPECT = AttackJob(PRESET.spec(0, "badnets", None))
RESULT = Relearning((0, 1), (0.5, 0.5), (0.0, 0.5), Metrics(1, 2, 1, 1, 2))


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = RunDir(tmp_path_factory.mktemp("relearn"))
    run_attacks(PRESET, run_dir, seeds=[0], progress=False)
    return run_dir


def _keys(images):
    return {image.numpy().tobytes() for image in images}


@pytest.mark.parametrize("subject", [SUSPECT, SUSPECT.clean_job], ids=["suspect", "clean model"])
def test_it_poisons_what_the_defender_did_not_get_and_measures_on_test_images(
    run_dir, monkeypatch, subject
):
    seen = {}

    def spy(model, clean, test, attack, **options):
        seen.update(clean=clean, test=test, attack=attack, **options)
        return RESULT

    monkeypatch.setattr(relearn, "evaluate_relearning", spy)
    row = RelearningJob(subject, SUSPECT, clean=40, ks=(1,), test_images=100).run(run_dir, False)
    assert RESULT.as_dict().items() <= row.items()
    assert (row["attack"], row["clean"], row["refused"]) == ("badnets", 40, None)
    splits = BASE.splits()
    train, val, others = defender_samples(splits.clean, 40, 0.2, seed=0)
    assert _keys(seen["clean"].images) == _keys(others.images)
    assert not _keys(seen["clean"].images) & (_keys(train.images) | _keys(val.images))
    assert len(seen["test"]) == 100
    assert _keys(seen["test"].images) <= _keys(splits.test.images)
    assert seen["test"].labels.bincount().min() >= 9
    assert seen["attack"].target == 0


def test_a_model_that_was_not_made_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"badnets has to be run before .*-relearning-suspect"):
        RelearningJob(SUSPECT, SUSPECT, clean=40).run(RunDir(tmp_path), False)


def test_whatever_a_result_depends_on_makes_another_cell():
    repair = RepairJob(SUSPECT, "d3", DefenseSpec("d3").all_options(0), 40, 20)
    jobs = [
        RelearningJob(SUSPECT, SUSPECT, clean=40),
        RelearningJob(SUSPECT.clean_job, SUSPECT, clean=40),
        RelearningJob(repair, SUSPECT, clean=40),
        RelearningJob(SUSPECT, SUSPECT, clean=41),
        RelearningJob(SUSPECT, SUSPECT, clean=40, ks=(1,)),
        RelearningJob(SUSPECT, SUSPECT, clean=40, test_images=100),
        RelearningJob(SUSPECT, SUSPECT, clean=40, config=RelearnConfig(steps=1)),
    ]
    assert len({key_of(job) for job in jobs}) == len(jobs)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="test_images must be an integer >= 1, got 0"):
        RelearningJob(SUSPECT, SUSPECT, clean=40, test_images=0)
