"""Rows of pilot.json: bounds of fields, checks across fields.

Further bounds are those of ``tests.hostile.audits``.
"""

import pytest

from d3fast.results.schema.fields import read_rows, tag_of
from d3fast.results.schema.pilot import (
    FailedRow,
    PilotSuspectRow,
    RecommendationRow,
    SensitivityRow,
    TrialRow,
)
from tests.audit.report.documents import pilot_rows
from tests.results.schema.committed import check_committed, first

KINDS = (PilotSuspectRow, TrialRow, FailedRow, SensitivityRow, RecommendationRow)


def read(kind, **changes):
    return first(kind, pilot_rows(), **changes)


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (PilotSuspectRow, {"correct": 113}, r"correct must be <= samples \(112\), got 113"),
        (PilotSuspectRow, {"targets": "3"}, "targets must be a list"),
        (TrialRow, {"acc": 1.5}, "acc must be <= 1, got 1.5"),
        (TrialRow, {"pareto": None}, "pareto must be true or false, got None"),
        (TrialRow, {"distance_weight": -1}, "distance_weight must be >= 0, got -1"),
        (TrialRow, {"samples": 0}, "samples must be >= 1, got 0"),
        (SensitivityRow, {"acc": [0.5]}, "acc must be of length 3, one per value, got 1"),
        (SensitivityRow, {"inversion_asr": [2, 0, 0]}, r"inversion_asr\[0\] must be <= 1, got 2"),
        (RecommendationRow, {"trial": 0.5}, "trial must be an integer, got 0.5"),
    ],
)
def test_an_error_names_the_row_the_field_and_the_value(kind, changes, says):
    with pytest.raises(ValueError, match=f"^{tag_of(kind)} row: {says}"):
        read(kind, **changes)


def test_a_failed_trial_has_a_reason():
    setting = {"distance_weight": 1.0, "clean_weight": 1.0, "epsilon": 0.1}
    row = {"kind": "failed", "trial": 1, "rung": 0, "epochs": 5, **setting, "reason": "loss is inf"}
    assert read_rows([row], FailedRow)[0].to_row() == row


def test_the_rate_that_counts_is_that_of_a_known_trigger():
    assert read(TrialRow, asr=0.25, inversion_asr=0.5).attack_rate == 0.25
    assert read(TrialRow, asr=None, inversion_asr=0.5).attack_rate == 0.5
    assert read(TrialRow, asr=None, inversion_asr=None).attack_rate is None
    assert read(TrialRow, asr=0.25, lift=0.2, inversion_lift=0.4).attack_lift == 0.2
    assert read(TrialRow, asr=None, inversion_lift=0.4).attack_lift == 0.4
    assert read(TrialRow, asr=0.25, inversion_asr=0.5).attack_lift is None


def test_the_committed_file_is_read_whole_and_written_as_it_was():
    check_committed("own-model-pilot", KINDS)
