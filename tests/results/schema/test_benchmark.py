"""Rows of the benchmark: bounds of each field, and every committed table."""

import pytest

from d3fast.results.schema.benchmark import read_attacks, read_demo, read_grid
from tests.results.schema.committed import committed_rows

TABLES = ("table-cpu", "vit-cpu", "text-table-cpu", "text-search-cpu")
SEARCHES = ("search-all-cpu", "search-d3-cpu", "search-final-cpu", "search-hard-cpu")
REPAIR = {"kind": "repair", "defense": "d3", "seed": 0, "attack": "badnets"}


@pytest.mark.parametrize("name", [*TABLES, *SEARCHES])
def test_committed_tables_are_read_whole(name):
    rows = committed_rows(name)
    assert [row.seed for row in read_grid(rows)] == [row["seed"] for row in rows]


@pytest.mark.parametrize("name", ["table-cpu", "vit-cpu", *SEARCHES])
def test_tables_are_written_with_the_fields_that_were_read(name):
    rows = committed_rows(name)
    assert [row.to_row() for row in read_grid(rows)] == rows


@pytest.mark.parametrize("name", ["attacks-cpu", "attacks-digits", "attacks-adaptive-cpu"])
def test_committed_attacks_are_read(name):
    rows = committed_rows(name)
    assert [row.to_row() for row in read_attacks(rows)] == rows


@pytest.mark.parametrize("name", ["demo-digits", "demo-digits-2026-11-29", "demo-fashion-mnist"])
def test_committed_demos_are_read(name):
    rows = committed_rows(name)
    assert [row.to_row() for row in read_demo(rows)] == rows


def test_a_row_without_numbers_says_why():
    (row,) = read_grid([{**REPAIR, "refused": "the floor is 31 %", "floor": 0.31}])
    assert (row.acc, row.refused) == (None, "the floor is 31 %")
    assert row.to_row()["floor"] == 0.31
    assert not {"acc", "der", "seconds", "val_accuracy"} & row.to_row().keys()


def test_relearning_without_numbers_has_no_curves():
    (row,) = read_grid([{**REPAIR, "kind": "relearning", "refused": "no suspect"}])
    assert not {"ks", "acc", "asr", "area", "before"} & row.to_row().keys()


def test_an_unknown_kind_is_an_error():
    with pytest.raises(ValueError, match=r"kind must be one of .*, got None"):
        read_grid([{"seed": 0}])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"acc": 97.5}, "acc must be <= 1, got 97.5"),
        ({"acc_loss": -2}, "acc_loss must be >= -1, got -2"),
        ({"seed": None}, "seed must be an integer, got None"),
        ({"der": "high"}, "der must be a number or null, got 'high'"),
        ({"ablation": 5}, "ablation must be an object or null, got 5"),
        ({"ablation": {"value": 1}}, "ablation.factor is missing"),
    ],
)
def test_an_error_names_the_row_the_field_and_the_value(changes, says):
    with pytest.raises(ValueError, match=f"^repair row: {says}"):
        read_grid([{**REPAIR, **changes}])


def test_curves_of_relearning_have_one_length():
    row = {**REPAIR, "kind": "relearning", "ks": [0, 1], "acc": [0.5], "asr": [0.5, 0.6]}
    with pytest.raises(ValueError, match="acc must be of length 2, got 1"):
        read_grid([row])
