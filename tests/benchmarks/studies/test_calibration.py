"""The study of the calibrated verdict: scores of other models become found, named and missed."""

import math

import pytest

from benchmarks.studies.calibration import CALIBRATIONS, RATES, rates, results_of
from d3fast.audit.calibration import read_calibration
from tests.audit.calibrations import NAMES, write_calibration


def row(attack, value, target=1):
    signs = {name: {"value": 2.0, "target": 0} for name in NAMES}
    signs["margin"] = {"value": value, "target": 1}
    return {"set": "dots", "attack": attack, "seed": 0, "target": target, "signs": signs}


@pytest.fixture
def table(tmp_path):
    calibration = read_calibration(write_calibration(tmp_path / "a.json", classes=10))
    rows = [row("badnets", 4.0), row("badnets", 50.0, target=2), row("clean", 2.0)]
    return {(r["attack"], r["rate"]): r for r in rates(rows, calibration, 0.01)}


def test_the_calibration_finds_what_the_fixed_threshold_misses(table):
    assert table["badnets", None]["found"] == 1
    assert table["badnets", 0.05]["found"] == 2
    assert table["badnets", 0.05]["named"] == 1
    assert table["clean", 0.05]["found"] == 0


def test_every_attack_has_a_row_per_rate_and_one_of_the_fixed_thresholds(table):
    assert len(table) == 2 * (1 + len(RATES))
    assert {row["models"] for row in table.values()} == {1, 2}


def test_the_largest_number_of_the_file_stands_for_infinity():
    assert results_of(row("clean", 1e6))[-1].value == math.inf


def test_seeds_of_the_shipped_calibrations_are_of_no_other_study():
    assert all(shipped.options.first_seed >= 1000 for shipped in CALIBRATIONS.values())
    assert all(shipped.options.models >= 40 for shipped in CALIBRATIONS.values())
