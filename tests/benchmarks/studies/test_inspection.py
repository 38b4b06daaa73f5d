"""Inspection study: which models are inspected, and how rates are counted."""

import pytest
import torch

from benchmarks.studies import inspection as study
from benchmarks.studies.inspection_report import inspect_table, rates_table
from d3fast.audit.detectors.scores import threshold
from d3fast.results.jobs import key_of
from d3fast.results.store import Results


def test_what_is_reported_is_measured_on_other_seeds_than_the_thresholds_were_chosen_on():
    for name, plan in study.PLANS.items():
        seeds = {*plan.backdoored, *plan.clean, *plan.uneven, *plan.sparse}
        assert seeds <= set(study.DEVELOPMENT) or not seeds & set(study.DEVELOPMENT), name


@pytest.mark.parametrize("name", study.PLANS)
def test_every_model_of_a_plan_is_inspected_once_and_trained_before(name):
    plan = study.PLANS[name]
    twins, attacks, looks = study.jobs_of(plan)
    assert len({key_of(look) for look in looks}) == len(looks)
    trained = [*twins, *attacks]
    assert all(look.source is None or look.source in trained for look in looks)
    assert all(attack.clean_job in twins for attack in attacks)
    count = len(plan.attacks) * len(plan.backdoored) + len(plan.clean)
    repaired = len(plan.attacks) * len(plan.repaired)
    assert sum(look.repaired for look in looks) == repaired
    assert len(looks) == count + repaired + len(plan.uneven) + len(plan.sparse)


def test_one_class_has_twice_as_many_images_in_an_uneven_model(monkeypatch):
    seen = {}

    def record(spec, splits, attack, progress):
        seen["counts"] = splits.train.labels.bincount()
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), 0.0

    monkeypatch.setattr(study, "train_model", record)
    look = study.jobs_of(study.PLANS["digits"])[2][-1]
    study._uneven(look.spec, look.spec.splits(), progress=False)
    counts = seen["counts"].float() / seen["counts"].float().median()
    assert counts[look.spec.seed % 10] == pytest.approx(2, rel=0.1)
    assert counts.sum() == pytest.approx(11, rel=0.1)


def row(attack, value, target=0, found=0, **other):
    signs = {"patch": {"value": value, "target": found}, "head": {"value": 0.0, "target": 1}}
    asr = None if attack.startswith("clean") else 0.9
    return {
        "kind": "inspected",
        "set": "digits",
        "attack": attack,
        "target": target,
        "asr": asr,
        "acc": 0.95,
        "signs": signs,
        **other,
    }


ROWS = [
    row("badnets", 99.0),
    row("badnets", 99.0, found=5),
    row("badnets", 0.1),
    row("clean", 99.0, target=None),
    row("clean", 0.1, target=None),
]


def test_a_wrong_class_is_found_but_not_named():
    counted = {(r["attack"], r["sign"]): r for r in study.rates(ROWS, 0.025)}
    one = counted["badnets", "all"]
    assert (one["found"], one["named"], one["models"]) == (2, 1, 3)
    assert counted["badnets", "head"]["found"] == 0
    clean = counted["clean", "all"]
    assert (clean["found"], clean["named"], clean["models"]) == (1, None, 2)
    assert 0 < clean["low"] < 0.5 < clean["high"] < 1


def test_the_rate_chosen_gains_most_and_is_the_lowest_of_equals():
    between = (threshold(10, 0.01) + threshold(10, 0.025)) / 2
    rows = [row("badnets", between), row("clean", 0.1, target=None)]
    table = study.choices(rows)
    assert [line["backdoored_found"] for line in table] == [0, 0, 1, 1]
    assert study.chosen_rate(table) == 0.025


def test_the_tables_have_a_line_per_kind_of_model_and_per_rate():
    results = Results("", {}, [*study.choices(ROWS), *study.rates(ROWS, 0.025), *ROWS])
    lines = inspect_table(results, "digits").splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "every attack",
        "badnets",
        "clean",
    ]
    assert lines[3].endswith("| 2 (21–94 %) | 1 |")
    assert len(rates_table(results).splitlines()) == 2 + len(study.RATES)
