"""The recommendation, against trying all; the sensitivity, against means by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d3fast.audit.pilot.advice import (
    attack_lift,
    going_on,
    lost,
    recommendation,
    sensitivity,
    with_front,
)
from d3fast.training.paired import PairedAccuracy

SAMPLES = 50
SUSPECT = {"correct": 45, "samples": SAMPLES, "acc": 0.9}


def run(trial, correct, inverted, asr=None, distance=1.0, **setting):
    parameters = {"distance_weight": 1.0, "clean_weight": 10.0, "epsilon": 0.1, **setting}
    return {
        "trial": trial,
        "rung": 0,
        "epochs": 5,
        "seconds": 10.0,
        "correct": correct,
        "samples": SAMPLES,
        "both": min(correct, SUSPECT["correct"]),
        "acc": correct / SAMPLES,
        "inversion_asr": inverted,
        "inversion_lift": inverted,
        "asr": asr,
        "lift": asr,
        "distance": distance,
        **parameters,
    }


counts = st.tuples(st.integers(30, 50), st.integers(0, 4), st.integers(1, 3))
tables = st.lists(counts, min_size=1, max_size=8).map(
    lambda cells: [run(i, c, a / 4, distance=float(d)) for i, (c, a, d) in enumerate(cells)]
)


@given(tables, st.integers(0, 10))
def test_no_other_setting_within_the_limit_has_a_lower_lift_or_wins_the_tie(rows, limit):
    best = rows[recommendation(SUSPECT, rows, limit, 50)["trial"]]
    within = [row for row in rows if 2 * (45 - row["correct"]) <= limit]
    for row in within:
        key = (row["inversion_lift"], -row["correct"], -row["distance"])
        assert (best["inversion_lift"], -best["correct"], -best["distance"]) <= key
    if not within:
        assert best["correct"] == max(row["correct"] for row in rows)


@given(tables)
def test_what_is_recommended_is_on_the_front(rows):
    best = recommendation(SUSPECT, rows, 4.0, 50)
    (row,) = [row for row in with_front(rows) if row["trial"] == best["trial"]]
    assert row["pareto"]


def test_a_trigger_that_was_given_decides_instead_of_the_inverted_ones_and_the_row_says_so():
    rows = [run(0, 45, inverted=0.0, asr=0.5), run(1, 45, inverted=0.4, asr=0.1)]
    chosen = recommendation(SUSPECT, rows, 1.0, 50)
    assert chosen["trial"] == 1
    assert "lowest lift of the trigger that was given, 10.0 points" in chosen["why"]


def test_a_trigger_that_was_given_has_no_say_in_who_goes_on():
    rows = [run(0, 45, inverted=0.0, asr=1.0), run(1, 45, inverted=0.4, asr=0.0)]
    assert going_on(rows, 1) == [0]


def test_where_none_is_within_the_row_says_so():
    chosen = recommendation(SUSPECT, [run(0, 40, 0.0), run(1, 42, 1.0)], 1.0, 50)
    assert (chosen["trial"], chosen["within"], chosen["acc_drop"]) == (1, False, 6.0)
    assert chosen["why"].startswith("none of 2 settings stays within 1 point after 5 epochs")


def test_the_row_says_what_the_held_out_samples_can_resolve():
    chosen = recommendation(SUSPECT, [run(0, 45, 0.0)], 1.0, 50)
    assert chosen["why"].endswith(
        "(one of 50 held-out samples is 2.0 points: the limit allows none to be lost)"
    )
    chosen = recommendation(SUSPECT, [run(0, 45, 0.0)], 2.0, 50)
    assert chosen["why"].endswith("(one of 50 held-out samples is 2.0 points)")


def test_seconds_of_a_whole_repair_are_those_of_an_epoch_times_its_epochs():
    chosen = recommendation(SUSPECT, [run(0, 45, 0.0)], 1.0, 60)
    assert (chosen["seconds_per_epoch"], chosen["seconds"]) == (2.0, 120.0)


def test_the_interval_of_the_loss_is_paired():
    chosen = recommendation(SUSPECT, [run(0, 42, 0.0)], 10.0, 50)
    low, high = PairedAccuracy(45, 42, 42, SAMPLES).interval
    assert (chosen["acc_drop_low"], chosen["acc_drop_high"]) == (low, high)
    assert "loses 6.0 points of accuracy (paired 95 % interval of the loss −" in chosen["why"]


def test_a_gain_is_no_loss():
    assert lost(SUSPECT, run(0, 48, 0.0)) == -6.0
    assert "gains 6.0 points" in recommendation(SUSPECT, [run(0, 48, 0.0)], 1.0, 50)["why"]


def test_sensitivities_are_means_by_value_and_their_range():
    rows = [
        run(0, 40, 0.0, clean_weight=3.0),
        run(1, 44, 0.5, clean_weight=3.0),
        run(2, 50, 0.5, clean_weight=30.0),
    ]
    _, row, _ = sensitivity(rows)
    assert (row["parameter"], row["values"]) == ("clean_weight", [3.0, 30.0])
    assert row["acc"] == pytest.approx([0.84, 1.0])
    assert row["inversion_asr"] == pytest.approx([0.25, 0.5])
    assert (row["acc_range"], row["asr_range"]) == pytest.approx((0.16, 0.25))


def test_the_lift_of_a_trigger_that_never_works_still_counts():
    assert attack_lift(run(0, 45, inverted=0.5, asr=0.0)) == 0.0


def test_plain_errors_toward_the_class_of_a_trigger_are_no_success_of_it():
    errs = {**run(0, 45, inverted=0.3), "inversion_lift": 0.05}
    backdoored = {**run(1, 45, inverted=0.2), "inversion_lift": 0.2}
    assert recommendation(SUSPECT, [errs, backdoored], 1.0, 50)["trial"] == 0
    assert going_on([errs, backdoored], 1) == [0]
    assert [row["pareto"] for row in with_front([errs, backdoored])] == [True, False]


def test_a_negative_lift_is_worth_no_more_than_none():
    negative = {**run(0, 44, inverted=0.1), "inversion_lift": -0.2}
    none = {**run(1, 45, inverted=0.0), "inversion_lift": 0.0}
    assert recommendation(SUSPECT, [negative, none], 4.0, 50)["trial"] == 1
