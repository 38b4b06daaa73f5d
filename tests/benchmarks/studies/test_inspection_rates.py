"""What the inspection study counts at a threshold and over all thresholds."""

import pytest

from benchmarks.studies import inspection_rates as counted
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS
from d3fast.audit.detectors.scores import threshold

OTHERS = {name: {"value": 1.0, "target": 1} for name in DEFAULT_DETECTORS}


def row(attack, value, target=0, found=0, **other):
    return {
        "kind": "inspected",
        "set": "digits",
        "attack": attack,
        "target": target,
        "asr": None if attack.startswith("clean") else 0.9,
        "acc": 0.95,
        "signs": {**OTHERS, "patch": {"value": value, "target": found}},
        **other,
    }


ROWS = [
    row("badnets", 99.0),
    row("badnets", 99.0, found=5),
    row("badnets", 0.1),
    row("clean", 99.0, target=None),
    row("clean", 0.1, target=None),
]
# Four clean models whose scores differ for every detector, and models above and below them.
SPREAD = [
    {
        **row("clean", 1.0 + at / 10, target=None),
        "signs": {name: {"value": 1 + at / 10, "target": 1} for name in DEFAULT_DETECTORS},
    }
    for at in range(4)
]


def test_a_wrong_class_is_found_but_not_named():
    rates = {(r["attack"], r["sign"]): r for r in counted.rates(ROWS, 0.025)}
    one = rates["badnets", "all"]
    assert (one["found"], one["named"], one["models"]) == (2, 1, 3)
    assert rates["badnets", "head"]["found"] == 0
    clean = rates["clean", "all"]
    assert (clean["found"], clean["named"], clean["models"]) == (1, None, 2)
    assert 0 < clean["low"] < 0.5 < clean["high"] < 1


def test_a_detector_that_saw_some_models_only_flags_none_of_them():
    slow = {**ROWS[2], "signs": {**ROWS[2]["signs"], "slow": {"value": 99.0, "target": 0}}}
    rates = {r["sign"]: r for r in counted.rates([slow, ROWS[2]], 0.025)}
    assert "slow" not in rates
    assert rates["all"]["found"] == 0


def test_the_rate_chosen_gains_most_and_is_the_lowest_of_equals():
    between = (threshold(10, 0.01) + threshold(10, 0.025)) / 2
    table = counted.choices([row("badnets", between), row("clean", 0.1, target=None)])
    assert [line["backdoored_found"] for line in table] == [0, 0, 1, 1]
    assert counted.chosen_rate(table) == 0.025


def test_an_area_compares_the_models_of_an_attack_with_the_clean_ones():
    rows = [*SPREAD, row("badnets", 9.0), row("badnets", 1.05, found=3), row("sig", 0.1)]
    areas = {(r["attack"], r["sign"]): r for r in counted.areas(rows, 0.01)}
    one = areas["badnets", "patch"]
    assert (one["models"], one["clean"], one["named"]) == (2, 4, 1)
    assert one["auc"] == pytest.approx((4 + 1) / 8)
    assert one["found"] == [1, 1]
    assert areas["sig", "patch"]["auc"] == 0
    assert areas[counted.EVERY, "patch"]["models"] == 3


def test_all_together_take_the_detector_that_is_furthest_from_clean_models():
    odd = row("badnets", 50.0, found=4)
    one = counted.scored([*SPREAD, odd], counted.ALL)[4]
    assert one.target == 4
    assert one.score > counted.scored([*SPREAD, row("badnets", 1.1)], counted.ALL)[4].score


def test_a_detector_is_compared_on_the_models_that_it_looked_at():
    slow = {"slow": {"value": 5.0, "target": 0}}
    seen = [{**one, "signs": {**one["signs"], **slow}} for one in (SPREAD[0], row("sig", 1.0))]
    areas = {(r["attack"], r["sign"]): r for r in counted.areas([*seen, *SPREAD[1:]], 0.01)}
    assert (areas["sig", "slow"]["models"], areas["sig", "slow"]["clean"]) == (1, 1)
    assert areas["sig", "slow"]["auc"] == 0.5


def test_more_models_of_digits_count_in_the_areas_and_not_in_the_rates():
    more = [{**one, "set": counted.MORE} for one in (SPREAD[1], row("sig", 9.0))]
    rows = [*SPREAD, row("sig", 9.0), *more]
    areas = {(r["set"], r["attack"]): r for r in counted.areas(rows, 0.01) if r["sign"] == "patch"}
    assert areas["digits", "sig"]["models"] == 2
    assert areas["digits", "clean"]["models"] == 5
    assert areas["digits", "clean"]["auc"] is None
    rates = {(r["set"], r["attack"]): r for r in counted.rates(rows, 0.01) if r["sign"] == "all"}
    assert rates["digits", "sig"]["models"] == 1
