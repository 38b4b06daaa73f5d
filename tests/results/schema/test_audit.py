"""Rows of inspect.json and card.json: bounds of each field, checks across fields."""

import pytest

from d3fast.results.schema.audit import (
    DetectorRow,
    EpochRow,
    InversionRow,
    LayerDistances,
    ModelRow,
    RepairRow,
    VerdictRow,
)
from d3fast.results.schema.fields import read_rows
from tests.audit.report.documents import card_rows
from tests.results.schema.committed import committed_rows

KINDS = {
    "model": ModelRow,
    "inversion": InversionRow,
    "sign": DetectorRow,
    "verdict": VerdictRow,
    "repair": RepairRow,
    "epoch": EpochRow,
    "distance": LayerDistances,
}


def read(kind, **changes):
    """The first row of a kind, some fields changed."""
    row = next(row for row in card_rows() if row["kind"] == kind)
    (found,) = read_rows([{**row, **changes}], KINDS[kind])
    return found


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("model", {"sha256": "x"}, "sha256 must be 64 hexadecimal digits"),
        ("model", {"correct": "439"}, "correct must be an integer, got '439'"),
        ("model", {"correct": 451}, r"correct must be <= images \(450\), got 451"),
        ("model", {"images": 0}, "images must be >= 1, got 0"),
        ("model", {"triggered": 4, "hits": 5}, r"hits must be <= triggered \(4\), got 5"),
        ("model", {"triggered": 4, "robust": 5}, "robust must be <= triggered"),
        ("model", {"acc": 1.5}, "acc must be <= 1, got 1.5"),
        ("inversion", {"norm": "4"}, "norm must be a number, got '4'"),
        ("inversion", {"norm": -1}, "norm must be >= 0, got -1"),
        ("inversion", {"success": 1.5}, "success must be <= 1"),
        ("inversion", {"outlier": None}, "outlier must be true or false, got None"),
        ("inversion", {"picture": 5}, "picture must be a text or null, got 5"),
        ("inversion", {"class": ["a"]}, "class must be a text, got a list of 1"),
        ("inversion", {"target": -1}, "target must be >= 0, got -1"),
        ("sign", {"value": True}, "value must be a number or null, got True"),
        ("sign", {"raised": 1}, "raised must be true or false, got 1"),
        ("sign", {"threshold": "low"}, "threshold must be a number"),
        ("verdict", {"suspicious": "yes"}, "suspicious must be true or false"),
        ("verdict", {"targets": 3}, "targets must be a list, got 3"),
        ("verdict", {"targets": [-1]}, r"targets\[0\] must be >= 0, got -1"),
        ("verdict", {"targets": [1] * 25_001}, "targets must be of length <= 25000, got 25001"),
        ("repair", {"acc_drop": "1"}, "acc_drop must be a number"),
        ("repair", {"acc_drop_low": 1.0}, "acc_drop must be from acc_drop_low to acc_drop_high"),
        ("repair", {"max_acc_drop": 101}, "max_acc_drop must be <= 100, got 101"),
        ("repair", {"output": "../../etc/passwd"}, "output must be the name of a file"),
        ("repair", {"output": ".."}, "output must be the name of a file"),
        ("repair", {"output": "a\\b"}, "output must be the name of a file"),
        ("repair", {"kept": "yes"}, "kept must be true or false"),
        ("repair", {"recovery_epochs": 25}, r"recovery_epochs must be <= epochs \(24\), got 25"),
        ("epoch", {"loss": [1]}, "loss must be a number"),
        ("epoch", {"accuracy": 2}, "accuracy must be <= 1, got 2"),
        ("epoch", {"epoch": 10**30}, "epoch must be <= 9007199254740992"),
        ("epoch", {"epoch": 0}, "epoch must be >= 1, got 0"),
        ("distance", {"layers": [5]}, r"layers\[0\] must be an object, got 5"),
        ("distance", {"layers": [{"name": "a", "relative": "far"}]}, r"layers\[0\]\.relative must"),
        ("distance", {"total": []}, "total must be an object or null"),
    ],
)
def test_an_error_names_the_row_the_field_and_the_value(kind, changes, says):
    with pytest.raises(ValueError, match=f"^{kind} row: {says}"):
        read(kind, **changes)


def test_names_of_the_json_are_kept():
    row = read("sign").to_row()
    assert row["kind"] == "sign"
    assert row["raised"] is True
    assert "class" in read("inversion").to_row()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_written_as_it_was_read(kind):
    old = next(row for row in card_rows() if row["kind"] == kind)
    new = read(kind).to_row()
    assert {key: new[key] for key in old} == old


@pytest.mark.parametrize(
    ("changes", "within"),
    [
        ({}, True),
        ({"kept": False}, False),
        ({"acc_drop": 1.5}, False),
        ({"acc_drop": 1.5, "max_acc_drop": None}, True),
    ],
)
def test_a_limit_is_kept_by_word_and_by_number(changes, within):
    assert read("repair", **changes).within_limit is within


@pytest.mark.parametrize(
    "name", ["own-model-inspect", "own-model-card", "own-model-card-with-trigger"]
)
def test_committed_files_are_read_whole(name):
    rows = committed_rows(name)
    found = [row for kind in KINDS.values() for row in read_rows(rows, kind)]
    assert len(found) == len(rows)
