"""Rows of inspect.json and card.json: bounds of fields, checks across fields.

Further bounds are those of ``tests.hostile.audits``.
"""

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
from d3fast.results.schema.fields import tag_of
from tests.audit.report.documents import card_rows
from tests.results.schema.committed import check_committed, first

KINDS = (ModelRow, InversionRow, DetectorRow, VerdictRow, RepairRow, EpochRow, LayerDistances)


def read(kind, **changes):
    return first(kind, card_rows(), **changes)


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (ModelRow, {"correct": 451}, r"correct must be <= images \(450\), got 451"),
        (ModelRow, {"images": 0}, "images must be >= 1, got 0"),
        (ModelRow, {"triggered": 4, "hits": 5}, r"hits must be <= triggered \(4\), got 5"),
        (ModelRow, {"triggered": 4, "robust": 5}, "robust must be <= triggered"),
        (ModelRow, {"acc": 1.5}, "acc must be <= 1, got 1.5"),
        (InversionRow, {"norm": -1}, "norm must be >= 0, got -1"),
        (InversionRow, {"success": 1.5}, "success must be <= 1"),
        (InversionRow, {"outlier": None}, "outlier must be true or false, got None"),
        (InversionRow, {"picture": 5}, "picture must be a text or null, got 5"),
        (InversionRow, {"target": -1}, "target must be >= 0, got -1"),
        (DetectorRow, {"raised": 1}, "raised must be true or false, got 1"),
        (DetectorRow, {"threshold": "low"}, "threshold must be a number"),
        (VerdictRow, {"suspicious": "yes"}, "suspicious must be true or false"),
        (VerdictRow, {"targets": 3}, "targets must be a list, got 3"),
        (VerdictRow, {"targets": [-1]}, r"targets\[0\] must be >= 0, got -1"),
        (RepairRow, {"acc_drop": "1"}, "acc_drop must be a number"),
        (RepairRow, {"acc_drop_low": 1.0}, "acc_drop must be from acc_drop_low to acc_drop_high"),
        (RepairRow, {"max_acc_drop": 101}, "max_acc_drop must be <= 100, got 101"),
        (RepairRow, {"kept": "yes"}, "kept must be true or false"),
        (RepairRow, {"recovery_epochs": 25}, r"recovery_epochs must be <= epochs \(24\), got 25"),
        (EpochRow, {"loss": [1]}, "loss must be a number"),
        (EpochRow, {"accuracy": 2}, "accuracy must be <= 1, got 2"),
        (EpochRow, {"epoch": 10**30}, "epoch must be <= 9007199254740992"),
        (EpochRow, {"epoch": 0}, "epoch must be >= 1, got 0"),
        (
            LayerDistances,
            {"layers": [{"name": "a", "relative": "far"}]},
            r"layers\[0\]\.relative must",
        ),
        (LayerDistances, {"total": []}, "total must be an object or null"),
    ],
)
def test_an_error_names_the_row_the_field_and_the_value(kind, changes, says):
    with pytest.raises(ValueError, match=f"^{tag_of(kind)} row: {says}"):
        read(kind, **changes)


def test_names_of_the_json_are_kept():
    row = read(DetectorRow).to_row()
    assert row["kind"] == "sign"
    assert row["raised"] is True
    assert "class" in read(InversionRow).to_row()


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
    assert read(RepairRow, **changes).within_limit is within


@pytest.mark.parametrize(
    "name", ["own-model-inspect", "own-model-card", "own-model-card-with-trigger"]
)
def test_committed_files_are_read_whole_and_written_as_they_were(name):
    check_committed(name, KINDS)
