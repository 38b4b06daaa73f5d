"""Every goal of D3 is plain, has its number, and says who is better."""

import pytest
from msgspec.structs import replace

from d3fast.benchmark.report.goals import better_elsewhere, judge_goals
from d3fast.benchmark.report.numbers import grid

GOALS = ("lift", "acc", "der", "adaptive", "relearning")


def change(rows, key, value, **where):
    return [
        replace(row, **{key: value})
        if hasattr(row, key) and all(getattr(row, k) == v for k, v in where.items())
        else row
        for row in rows
    ]


def judged(rows):
    return dict(zip(GOALS, judge_goals(rows), strict=True))


def test_all_goals_are_reached_where_they_are(grid_rows):
    assert [goal.outcome for goal in judge_goals(grid_rows())] == ["reached"] * 5


@pytest.mark.parametrize(
    ("goal", "key", "value", "where", "said"),
    [
        ("lift", "lift", 0.1, {"attack": "sig", "seed": 1}, "worst 10.00 on sig, seed 1"),
        ("acc", "acc", 0.5, {"attack": "sig"}, "points below fine-tuning"),
        ("der", "der", 0.5, {"attack": "sig"}, "better: "),
        (
            "adaptive",
            "lift",
            0.03,
            {"attack": "blended", "adaptive": "sam-3"},
            "missed on blended (sam-3) 3.00 points",
        ),
        ("relearning", "area", 0.7, {}, "lower: sau by 0."),
    ],
)
def test_what_is_missed_is_said_with_its_number(grid_rows, goal, key, value, where, said):
    found = judged(change(grid_rows(), key, value, defense="d3", **where))[goal]
    assert found.outcome == "missed"
    assert said in found.found


def test_goals_are_judged_before_rounding(grid_rows):
    rows = change(grid_rows(), "lift", 0.003, defense="d3")
    assert judged(rows)["lift"].reached
    assert judged(change(rows, "lift", 0.00301, defense="d3"))["lift"].reached is False


def test_one_bad_attack_misses_the_goal_though_the_mean_is_small(grid_rows):
    rows = change(grid_rows(), "lift", 0.0, defense="d3")
    rows = change(rows, "lift", 0.021, defense="d3", attack="sig", seed=1)
    found = judged(rows)["lift"]
    assert found.outcome == "missed"
    assert "0.10 points over" in found.found


def test_results_without_lift_are_judged_by_the_excess_and_say_so(grid_rows):
    rows = change(change(grid_rows(), "lift", None), "asr_excess", 0.001, defense="d3")
    found = judged(rows)
    assert found["lift"].text.startswith("mean ASR excess over plain attacks")
    assert found["lift"].reached
    assert found["adaptive"].text.startswith("ASR excess of every adaptive attack")


def test_acc_is_compared_with_fine_tuning_and_with_the_suspect(grid_rows):
    rows = change(grid_rows(), "acc_loss", 0.034, defense="d3")
    assert judged(rows)["acc"].found.endswith("3.40 below the suspect")


def test_where_nothing_is_poisoned_only_the_accuracy_is_judged(grid_rows):
    rows = [
        replace(row, ratio=0.0) if hasattr(row, "ratio") else row
        for row in grid_rows(adaptive=(), extras=False)
    ]
    (goal,) = judge_goals(rows)
    assert goal.text.startswith("ACC at most")


def test_without_d3_nothing_is_judged(grid_rows):
    rows = [row for row in grid_rows() if row.defense != "d3"]
    assert {goal.outcome for goal in judge_goals(rows)} == {"not measured"}


def test_a_missing_cell_neither_helps_nor_harms_a_rival(grid_rows):
    rows = grid_rows()
    hardest = change(rows, "der", 0.1, attack="sig")
    without = [r for r in hardest if not (r.defense == "sau" and r.attack == "sig")]
    assert grid(without).overall("sau", "der") > grid(without).overall("d3", "der")
    assert judged(without)["der"].reached


def test_d3_measured_in_part_is_said_to_be(grid_rows):
    rows = [r for r in grid_rows() if not (r.defense == "d3" and r.attack == "sig")]
    assert "only 18 of 21 models" in judged(rows)["lift"].found


def test_the_best_other_defence_is_named_per_attack_and_measure(grid_rows):
    rows = change(grid_rows(), "lift", -0.02, defense="sau", attack="wanet", adaptive=None)
    found = better_elsewhere(grid(rows))["wanet"]
    assert found["lift"][:2] == ("sau", pytest.approx(-0.02))
    assert found["acc"][0] == "fine-tuning"
    assert "der" not in found


def test_differences_that_the_tables_do_not_show_are_passed_over(grid_rows):
    rows = grid_rows(defenses=("d3", "sau"), adaptive=(), extras=False)
    for key in ("acc", "lift", "der"):
        rows = change(change(rows, key, 0.9, defense="d3"), key, 0.9002, defense="sau")
    assert better_elsewhere(grid(rows)) == {}
