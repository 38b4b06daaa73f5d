"""Rows of the benchmark: bounds of each field, and every committed table."""

import pytest

from d3fast.results.schema.benchmark import (
    AttackRow,
    CleanRow,
    DefenseRow,
    DemoRow,
    RelearningRow,
    SuspectRow,
)
from d3fast.results.schema.fields import read_record, read_rows
from tests.results.schema.committed import committed_rows

GRID = {"clean": CleanRow, "suspect": SuspectRow, "repair": DefenseRow, "relearning": RelearningRow}
TABLES = ("table-cpu", "vit-cpu", "text-table-cpu", "text-search-cpu")
SEARCHES = ("search-all-cpu", "search-d3-cpu", "search-final-cpu", "search-hard-cpu")
REPAIR = {"kind": "repair", "defense": "d3", "seed": 0, "attack": "badnets"}


@pytest.mark.parametrize("name", [*TABLES, *SEARCHES])
def test_committed_tables_are_read_whole(name):
    rows = committed_rows(name)
    assert sum(len(read_rows(rows, kind)) for kind in GRID.values()) == len(rows)


@pytest.mark.parametrize("name", ["attacks-cpu", "attacks-digits", "attacks-adaptive-cpu"])
def test_committed_attacks_are_read(name):
    for row in committed_rows(name):
        found = read_record(row, AttackRow)
        assert (found.acc, found.options) == (row["acc"], row.get("options"))


@pytest.mark.parametrize("name", ["demo-digits", "demo-fashion-mnist"])
def test_committed_demos_are_read(name):
    for row in committed_rows(name):
        assert read_record(row, DemoRow).asr == row["asr"]


def test_a_row_without_numbers_says_why():
    (row,) = read_rows([{**REPAIR, "refused": "the floor is 31 %"}], DefenseRow)
    assert (row.acc, row.refused) == (None, "the floor is 31 %")


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
        read_rows([{**REPAIR, **changes}], DefenseRow)


def test_curves_of_relearning_have_one_length():
    row = {**REPAIR, "kind": "relearning", "ks": [0, 1], "acc": [0.5], "asr": [0.5, 0.6]}
    with pytest.raises(ValueError, match="acc must be of length 2, got 1"):
        read_rows([row], RelearningRow)
