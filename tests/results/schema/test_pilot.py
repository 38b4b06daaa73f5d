"""Rows of pilot.json: bounds of each field, checks across fields."""

import pytest

from d3fast.results.schema.fields import read_rows
from d3fast.results.schema.pilot import (
    FailedRow,
    PilotSuspectRow,
    RecommendationRow,
    SensitivityRow,
    TrialRow,
)
from tests.audit.report.documents import pilot_rows
from tests.results.schema.committed import committed_rows

KINDS = {
    "suspect": PilotSuspectRow,
    "trial": TrialRow,
    "failed": FailedRow,
    "sensitivity": SensitivityRow,
    "recommendation": RecommendationRow,
}


def read(kind, **changes):
    row = next(row for row in pilot_rows() if row["kind"] == kind)
    (found,) = read_rows([{**row, **changes}], KINDS[kind])
    return found


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("suspect", {"correct": 113}, r"correct must be <= samples \(112\), got 113"),
        ("suspect", {"targets": "3"}, "targets must be a list"),
        ("trial", {"acc": 1.5}, "acc must be <= 1, got 1.5"),
        ("trial", {"pareto": None}, "pareto must be true or false, got None"),
        ("trial", {"distance_weight": -1}, "distance_weight must be >= 0, got -1"),
        ("trial", {"samples": 0}, "samples must be >= 1, got 0"),
        ("trial", {"seconds": 1e13}, r"seconds must be <= 1000000000000, got"),
        ("sensitivity", {"acc": [0.5]}, "acc must be of length 3, one per value, got 1"),
        ("sensitivity", {"values": list(range(51))}, "values must be of length <= 50, got 51"),
        ("sensitivity", {"inversion_asr": [2, 0, 0]}, r"inversion_asr\[0\] must be <= 1, got 2"),
        ("recommendation", {"why": None}, "why must be a text, got None"),
        ("recommendation", {"trial": 0.5}, "trial must be an integer, got 0.5"),
    ],
)
def test_an_error_names_the_row_the_field_and_the_value(kind, changes, says):
    with pytest.raises(ValueError, match=f"^{kind} row: {says}"):
        read(kind, **changes)


def test_a_failed_trial_has_a_reason():
    setting = {"distance_weight": 1.0, "clean_weight": 1.0, "epsilon": 0.1}
    row = {"kind": "failed", "trial": 1, "rung": 0, "epochs": 5, **setting, "reason": "loss is inf"}
    assert read_rows([row], FailedRow)[0].to_row() == row


def test_the_rate_that_counts_is_that_of_a_known_trigger():
    assert read("trial", asr=0.25, inversion_asr=0.5).attack_rate == 0.25
    assert read("trial", asr=None, inversion_asr=0.5).attack_rate == 0.5
    assert read("trial", asr=None, inversion_asr=None).attack_rate is None


def test_the_committed_file_is_read_whole():
    rows = committed_rows("own-model-pilot")
    assert sum(len(read_rows(rows, kind)) for kind in KINDS.values()) == len(rows)
