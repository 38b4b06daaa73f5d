"""The study of the calibrated verdict: scores of other models become found, named and missed."""

import math

import pytest

from benchmarks.studies.calibration import (
    CALIBRATIONS,
    FOUR,
    RATES,
    calibrated_rates,
    results_of,
    roc_curves,
)
from benchmarks.studies.calibration_report import calibrated_table
from benchmarks.studies.inspection import _sign
from benchmarks.studies.inspection_rates import ALL
from d3fast.audit.calibration import read_calibration
from d3fast.audit.detectors.base import DetectorResult
from d3fast.results.store import Results
from tests.audit.calibrations import NAMES, write_calibration


def row(attack, value, target=1, statistics=None):
    signs = {
        name: {"value": 2.0, "target": 0, "statistics": statistics or [0.5] * 10} for name in NAMES
    }
    signs["margin"] |= {"value": value, "target": 1}
    asr = None if attack == "clean" else 1.0
    known = {"target": target, "asr": asr, "seed": 0}
    return {"set": "dots", "attack": attack, **known, "signs": signs}


@pytest.fixture
def calibration(tmp_path):
    path = write_calibration(tmp_path / "a.json", classes=10, largest=3)
    return read_calibration(path)


def usual(besides=()):
    """Statistics like those of the clean models: class 3 has the largest."""
    return [0.5 + 9 * (k == 3) + dict(besides).get(k, 0) for k in range(10)]


@pytest.fixture
def table(calibration):
    rows = [
        row("badnets", 2.0, 7, usual([(7, 9)])),
        row("badnets", 50.0, 2, usual()),
        row("clean", 2.0, None, usual()),
    ]
    found = calibrated_rates(rows, calibration)
    return {(r["attack"], r["detectors"], r["by_class"], r["rate"]): r for r in found}


def test_the_class_of_clean_models_finds_what_the_scores_miss(table):
    by_class = table["badnets", ALL, True, 0.05]
    assert (by_class["found"], by_class["named"], by_class["auc"]) == (1, 1, 0.75)
    by_score = table["badnets", ALL, False, 0.05]
    assert (by_score["found"], by_score["named"], by_score["auc"]) == (1, 0, 0.75)


def test_no_clean_model_is_named_and_none_has_an_area(table):
    clean = table["clean", ALL, True, 0.05]
    assert (clean["found"], clean["named"], clean["auc"]) == (0, None, None)


def test_every_detector_alone_and_all_together_have_a_row_per_rate(table):
    labels = {label for _, label, _, _ in table}
    assert labels == {ALL, FOUR, *NAMES}
    assert len(table) == 3 * len(labels) * 2 * len(RATES)


def test_the_largest_number_of_the_file_stands_for_infinity():
    assert results_of(row("clean", 1e6))[-1].value == math.inf
    assert results_of(row("clean", 1.0), by_class=False)[0].statistics == ()


def test_a_recorded_score_is_that_of_the_model_by_itself():
    compared = DetectorResult("patch", 50.0, 0.0, 3, "", statistics=(1.0, 2.0, 9.0, 1.5, 1.8))
    sign = _sign(compared)
    assert (round(sign["value"], 2), sign["target"]) == (16.19, 2)


def test_curves_are_of_every_detector_and_of_all_by_class_and_by_score(calibration):
    rows = [row("badnets", 2.0, 7, usual([(7, 9)])), row("clean", 2.0, None, usual())]
    curves = roc_curves(rows, calibration)
    assert list(curves) == ["all", *NAMES, "all, by score"]
    truth, scores = curves["all"]
    assert truth == [True, False]
    assert scores[0] > scores[1]
    assert curves["all, by score"][1][0] == curves["all, by score"][1][1]


def test_the_table_has_the_lowest_rate_beside_what_the_scores_find(table):
    models = [{"kind": "inspected", **row("badnets", 2.0), "set": "dots"}]
    lines = calibrated_table(Results("", {}, [*models, *table.values()])).splitlines()
    assert lines[0].count("|") == 13
    badnets = next(line for line in lines if line.startswith("| badnets"))
    assert "| 100 |" in badnets
    assert "| 1 (9–91 %) | 1 |" in badnets
    clean = next(line for line in lines if line.startswith("| clean"))
    assert clean.endswith("| – | – | 0 (0–79 %) |")


def test_seeds_of_the_shipped_calibrations_are_of_no_other_study():
    assert all(studied.options.first_seed >= 1000 for studied in CALIBRATIONS.values())
    assert all(studied.options.models >= 40 for studied in CALIBRATIONS.values())
