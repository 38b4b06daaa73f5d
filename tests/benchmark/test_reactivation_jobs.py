"""One job of the re-activation test: its models, its images and its row."""

import pytest

from d3fast.benchmark import reactivation_jobs as jobs
from d3fast.benchmark.attack_jobs import AttackJob, AttackPreset, run_attacks
from d3fast.benchmark.defender import defender_samples
from d3fast.benchmark.reactivation import Reactivation, ReactivationConfig
from d3fast.benchmark.reactivation_jobs import ReactivationJob
from d3fast.benchmark.repair_jobs import DefenseSpec, RepairJob
from d3fast.results.jobs import RunDir, key_of
from d3fast.results.schema.benchmark import read_grid
from d3fast.training.metrics import Metrics
from tests.benchmark.small import learned_spec

BASE = learned_spec()
PRESET = AttackPreset(BASE, (("badnets", None),))
SUSPECT = AttackJob(PRESET.spec(0, "badnets", None))
COUNTS = Metrics(1, 2, 1, 1, 2)
SHORT = ReactivationConfig(steps=3, batch_size=8)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    run_dir = RunDir(tmp_path_factory.mktemp("reactivation"))
    run_attacks(PRESET, run_dir, seeds=[0], progress=False)
    return run_dir


def _keys(images):
    return {image.numpy().tobytes() for image in images}


def test_a_job_gives_a_row_of_the_grid(run_dir):
    job = ReactivationJob(SUSPECT, SUSPECT, 40, test_images=50, surrogate_epochs=1, config=SHORT)
    labels = {"kind": "reactivation", "defense": "none", "ablation": None}
    (row,) = read_grid([{**labels, **job.run(run_dir, False)}])
    assert (row.attack, row.clean, row.refused) == ("badnets", 40, None)
    assert row.existence == pytest.approx(1)
    assert row.white_box.triggered == row.untriggered.triggered == row.transfer.triggered == 45
    assert row.lift == pytest.approx(row.white_box.asr - row.untriggered.asr)


def test_the_clean_model_has_no_backdoor_left(run_dir):
    job = ReactivationJob(SUSPECT.clean_job, SUSPECT, 40, surrogate_epochs=1, config=SHORT)
    assert job.run(run_dir, False)["existence"] == 0


def test_the_attacker_has_the_images_that_the_defender_did_not_get(run_dir, monkeypatch):
    seen = {}

    def spy(model, clean, test, attack, **options):
        seen.update(clean=clean, test=test, **options)
        return Reactivation(COUNTS, COUNTS, COUNTS, COUNTS)

    monkeypatch.setattr(jobs, "evaluate_reactivation", spy)
    ReactivationJob(SUSPECT, SUSPECT, 40, test_images=100, surrogate_epochs=1).run(run_dir, False)
    splits = BASE.splits()
    train, val, others = defender_samples(splits.clean, 40, 0.2, seed=0)
    assert _keys(seen["clean"].images) == _keys(others.images)
    assert not _keys(seen["clean"].images) & (_keys(train.images) | _keys(val.images))
    assert _keys(seen["test"].images) <= _keys(splits.test.images)
    assert len(seen["surrogates"]) == 1


def test_a_model_that_was_not_made_is_asked_for(tmp_path):
    with pytest.raises(ValueError, match=r"badnets has to be run before .*-reactivation-suspect"):
        ReactivationJob(SUSPECT, SUSPECT, clean=40).run(RunDir(tmp_path), False)


def test_whatever_a_result_depends_on_makes_another_job():
    repair = RepairJob(SUSPECT, "d3", DefenseSpec("d3").all_options(0), 40, 20)
    made = [
        ReactivationJob(SUSPECT, SUSPECT, clean=40),
        ReactivationJob(SUSPECT.clean_job, SUSPECT, clean=40),
        ReactivationJob(repair, SUSPECT, clean=40),
        ReactivationJob(SUSPECT, SUSPECT, clean=41),
        ReactivationJob(SUSPECT, SUSPECT, clean=40, test_images=100),
        ReactivationJob(SUSPECT, SUSPECT, clean=40, surrogate_epochs=1),
        ReactivationJob(SUSPECT, SUSPECT, clean=40, config=SHORT),
    ]
    assert len({key_of(job) for job in made}) == len(made)


@pytest.mark.parametrize("option", ["test_images", "surrogate_epochs"])
def test_numbers_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be an integer >= 1, got 0"):
        ReactivationJob(SUSPECT, SUSPECT, clean=40, **{option: 0})
