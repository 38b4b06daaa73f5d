"""Inspection study: which models are inspected, and which jobs that takes."""

from contextlib import nullcontext

import pytest
import torch

from benchmarks.studies import inspection as study
from benchmarks.studies import inspection_plans as plans
from benchmarks.studies.harness import Workers
from d3fast.attacks import recipe
from d3fast.results.jobs import RunDir, finished_row, key_of


def test_what_is_reported_is_measured_on_other_seeds_than_the_thresholds_were_chosen_on():
    for name, plan in plans.PLANS.items():
        seeds = {*plan.backdoored, *plan.clean, *plan.uneven, *plan.sparse, *plan.slow}
        assert seeds <= set(plans.DEVELOPMENT) or not seeds & set(plans.DEVELOPMENT), name


@pytest.mark.parametrize("name", plans.PLANS)
def test_every_model_of_a_plan_is_inspected_once_and_trained_before(name):
    plan = plans.PLANS[name]
    twins, attacks, looks = study.jobs_of(plan)
    assert len({key_of(look) for look in looks}) == len(looks)
    trained = [*twins, *attacks]
    assert all(look.source is None or look.source in trained for look in looks)
    assert all(attack.clean_job in twins for attack in attacks)
    usual = [look for look in looks if look.options == plans.OPTIONS]
    count = len(plan.attacks) * len(plan.backdoored) + len(plan.clean)
    repaired = len(plan.attacks) * len(plan.repaired)
    assert sum(look.repaired for look in usual) == repaired
    assert len(usual) == count + repaired + len(plan.uneven) + len(plan.sparse)


def test_target_classes_take_turns_and_are_not_those_of_the_recipes():
    attacks = study.jobs_of(plans.PLANS[plans.TARGETS])[1]
    usual = {recipe(name, "digits").target for name in plans.PLANS[plans.TARGETS].attacks}
    assert len({job.spec.target for job in attacks}) >= 7
    assert not {job.spec.target for job in attacks} & usual


def test_slow_detectors_look_at_the_models_of_their_seeds_as_they_were_trained():
    plan = plans.PLANS[plans.MORE]
    slow = [look for look in study.jobs_of(plan)[2] if look.options == plan.slowly]
    assert {look.spec.seed for look in slow} == set(plan.slow) != set()
    assert not any(look.repaired or look.source is None for look in slow)


def test_one_class_has_twice_as_many_images_in_an_uneven_model(monkeypatch):
    seen = {}

    def record(spec, splits, attack, progress):
        seen["counts"] = splits.train.labels.bincount()
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), 0.0

    monkeypatch.setattr(study, "train_model", record)
    look = study.jobs_of(plans.PLANS["digits"])[2][-1]
    study._uneven(look.spec, look.spec.splits(), progress=False)
    counts = seen["counts"].float() / seen["counts"].float().median()
    assert counts[look.spec.seed % 10] == pytest.approx(2, rel=0.1)
    assert counts.sum() == pytest.approx(11, rel=0.1)


class Instant:
    """An engine whose jobs end at once with a row of scores."""

    capacity, graph = 1, False

    def __init__(self, folder):
        self.run_dir, self.ended, self.kinds = RunDir(folder), [], []

    def submit(self, key, job, needs=()):
        self.kinds.append(job.job.kind)
        asked = getattr(job.job, "options", None)
        name = "differential" if asked == study.PLANS["small"].slowly else "patch"
        row = {
            "attack": "clean",
            "target": None,
            "asr": None,
            "seed": 0,
            "seconds": 1.0,
            "signs": {name: {"value": 1.0, "target": 0}},
        }
        done = type(job.job)
        original, done.run = done.run, lambda *_: row
        try:
            self.ended.append((key, job.run(self.run_dir, False)))
        finally:
            done.run = original

    def take(self):
        return self.ended.pop(0)


@pytest.fixture
def workers(tmp_path, monkeypatch):
    preset = plans.PLANS["digits"].preset
    plan = plans.StudyPlan(preset, (), (), clean=(0, 1), slow=(1,))
    monkeypatch.setattr(study, "PLANS", {"small": plan})
    return Workers(RunDir(tmp_path), Instant(tmp_path))


def test_scores_of_a_slow_detector_join_those_of_the_same_model(workers):
    found = study.inspected("small", workers)
    assert found.missing == 0
    assert [list(row["signs"]) for row in found.rows] == [["patch"], ["patch", "differential"]]


def test_a_model_whose_inspections_are_finished_is_not_trained_again(workers):
    study.inspected("small", workers)
    folder = workers.run_dir.folder
    for clean in study.jobs_of(study.PLANS["small"])[0]:
        (folder / "cells" / f"{key_of(clean)}.json").unlink()
    workers.engine.kinds.clear()
    study.inspected("small", workers)
    assert workers.engine.kinds == []


def test_no_job_starts_after_the_deadline_and_what_is_missing_is_counted(workers):
    found = study.inspected("small", workers, deadline=0.0)
    assert (found.rows, found.missing) == ([], 3)
    assert finished_row(study.jobs_of(study.PLANS["small"])[0][0], workers.run_dir.folder) is None


def test_partial_results_are_written_only_where_they_are_asked_for(workers, monkeypatch):
    monkeypatch.setattr(study, "start_workers", lambda *_: nullcontext(workers))
    monkeypatch.setattr(study, "inspected", lambda *_: study.Inspected([{"set": "development"}], 2))
    with pytest.raises(SystemExit, match="inspections are missing"):
        study.inspection(workers.run_dir.folder, "development", 1, None)
