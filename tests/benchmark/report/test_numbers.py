"""Means and settings of the grid; missing numbers stay missing."""

import pytest
from msgspec.structs import replace

from d3fast.benchmark.report.numbers import (
    ablations,
    both_grids,
    grid,
    relearning,
    sections,
)
from d3fast.results.schema.benchmark import CleanRow, DefenseRow, SuspectRow


def test_the_grid_has_plain_attacks_in_their_order_and_the_best_defence_first(grid_rows):
    made = grid(grid_rows(defenses=("fine-tuning", "d3", "sau")))
    assert made.attacks[:3] == ("badnets", "blended", "sig")
    assert made.defenses == ("d3", "sau", "fine-tuning")
    assert made.seeds == (0, 1, 2)


def test_adaptive_attacks_have_a_grid_of_their_own_in_the_same_order(grid_rows):
    plain, adaptive = both_grids(grid_rows())
    assert adaptive.attacks == ("badnets (sam-3)", "blended (sam-3)", "badnets (distance-aware)")
    assert adaptive.defenses == plain.defenses


def test_means_are_over_attacks_and_then_over_seeds():
    def row(seed, attack, acc):
        return DefenseRow(seed=seed, attack=attack, defense="d3", acc=acc)

    made = grid([row(0, "a", 0.8), row(0, "b", 0.9), row(1, "a", 0.7)])
    assert made.seed_means("d3", "acc") == pytest.approx([0.85, 0.7])
    assert made.overall("d3", "acc") == pytest.approx(0.775)
    assert made.mean("a", "d3", "acc") == pytest.approx(0.75)


def test_missing_and_refused_numbers_are_none_not_zero(grid_rows):
    rows = grid_rows(seeds=1, attacks=("badnets",), adaptive=(), defenses=("d3", "anp"))
    rows = [replace(row, refused="no") if row.defense == "anp" else row for row in rows]
    made = grid(rows)
    assert made.mean("badnets", "anp", "acc") is None
    assert made.mean("badnets", "sau", "acc") is None
    assert made.overall("anp", "der") is None
    assert made.worst("anp", "asr_excess") is None
    assert made.defenses == ("d3", "anp")


def test_acc_is_compared_with_fine_tuning_of_the_same_attack_and_seed():
    rows = [
        DefenseRow(seed=seed, attack="a", defense=name, acc=acc)
        for seed, name, acc in ((0, "fine-tuning", 0.9), (0, "d3", 0.88), (1, "d3", 0.5))
    ]
    assert grid(rows).acc_changes("d3") == pytest.approx([-0.02])


def test_ablations_and_other_kinds_are_not_in_the_grid(grid_rows):
    with_extras, without = grid(grid_rows()), grid(grid_rows(extras=False))
    assert with_extras == without


def test_a_refused_attack_is_not_expected_of_a_defence(grid_rows):
    rows = grid_rows(seeds=2, attacks=("badnets", "blended"), adaptive=(), defenses=("d3",))
    refused = [
        replace(row, refused="floor too high") if row.attack == "blended" else row for row in rows
    ]
    assert grid(rows).expected() == 4
    assert grid(refused).expected() == 2
    assert grid(refused).floor("blended") is not None


def test_one_setting_has_no_name_and_several_are_told_apart(grid_rows):
    rows = grid_rows(model="net", extras=False)
    assert list(sections(rows)) == [""]
    both = sections(rows + grid_rows(model="vit", extras=False))
    assert list(both) == ["net", "vit"]
    assert both["net"] == rows


def test_suspects_and_clean_models_belong_to_every_number_of_clean_samples(grid_rows):
    rows = grid_rows(seeds=1, extras=False)
    fewer = [replace(row, clean=50) for row in rows if isinstance(row, DefenseRow)]
    found = sections(rows + fewer)
    assert list(found) == ["500 clean samples", "50 clean samples"]
    for own in found.values():
        assert {type(row) for row in own} == {CleanRow, SuspectRow, DefenseRow}


def test_no_rows_are_one_empty_setting():
    assert sections([]) == {"": []}
    assert grid([]).attacks == ()


def test_ablations_stand_by_factor_and_defence_and_numbers_ascend(grid_rows):
    found = ablations(grid_rows())
    assert list(found) == ["lambda", "warm start", "clean share"]
    assert list(found["lambda"]["d3"]) == [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    assert list(found["warm start"]["d3"]) == ["near", "far", "random"]
    assert list(found["clean share"]) == ["d3", "fine-tuning"]


def test_relearning_rows_stand_by_attack_and_model(grid_rows):
    found = relearning(grid_rows(seeds=2))
    assert list(found) == ["badnets", "blended"]
    assert {len(rows) for rows in found["badnets"].values()} == {2}
