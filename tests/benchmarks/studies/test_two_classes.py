"""The study of models of two classes: the labels, and what is counted."""

import pytest

from benchmarks.studies.two_classes import (
    CALIBRATION,
    OPTIONS,
    parity,
    two_classes_table,
    verdict_rows,
)
from d3fast.audit.calibration import read_calibration
from d3fast.results.schema.calibration import ScoredModelRow
from d3fast.results.store import Results
from tests.audit.calibrations import scores, write_calibration


def model(attack, statistics, target=None):
    asr = None if attack is None else 0.9
    own = scores([None] * 4, statistics)
    return ScoredModelRow(seed=1, attack=attack, target=target, acc=0.95, asr=asr, scores=own)


@pytest.fixture
def rows(tmp_path):
    calibration = read_calibration(write_calibration(tmp_path / "a.json", classes=2, largest=1))
    models = [
        model(None, (0.5, 9.5)),
        model("badnets", (9.5, 0.5), 0),
        model("badnets", (0.5, 30.0), 0),
        model("badnets", (0.5, 9.5), 0),
    ]
    return list(verdict_rows(models, calibration, 0.05))


def test_found_and_named_are_counted_per_attack(rows):
    clean, badnets = rows
    assert (clean["attack"], clean["found"], clean["asr"]) == ("clean", 0, None)
    assert (badnets["models"], badnets["found"], badnets["named"]) == (3, 2, 1)
    assert set(badnets["flagged_by"].values()) == {2}


def test_the_table_has_no_target_of_clean_models(rows):
    lines = two_classes_table(Results("", {}, rows)).splitlines()
    assert lines[2].endswith("| – |")
    assert lines[3].endswith("| 1 |")


def test_digits_are_even_or_odd():
    data = parity()
    assert data.classes == ("even", "odd")
    assert 0.45 < data.labels.float().mean() < 0.55


def test_other_models_than_those_of_the_calibration_are_compared():
    assert OPTIONS.models - CALIBRATION >= 20
