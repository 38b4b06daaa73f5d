"""The study of attackers who know the detectors: the same models without and with the attacker."""

import pytest

from benchmarks.studies.evasion import EVERY, evasion_rows, evasion_table
from benchmarks.studies.inspection import jobs_of
from benchmarks.studies.inspection_plans import ABI, AWARE, CALIBRATED, PLANS
from d3fast.audit.calibration import read_calibration
from d3fast.results.store import Results
from tests.audit.calibrations import NAMES, write_calibration


def row(attack, raised, seed=50):
    """A model whose target, class 1, has statistics that many units above those of the others."""
    statistics = [0.5 + raised * (k == 1) for k in range(10)]
    signs = {name: {"value": 1.0, "target": 1, "statistics": statistics} for name in NAMES}
    return {"attack": attack, "target": 1, "seed": seed, "acc": 0.9, "asr": 1.0, "signs": signs}


@pytest.fixture
def rows(tmp_path):
    calibration = read_calibration(write_calibration(tmp_path / "a.json", classes=10, largest=3))
    aware = [row("badnets (detector-aware)", 0.0), row("badnets (detector-aware)", 9.0, 51)]
    others = [row("badnets", 9.0, 99), row("wanet", 9.0), row("clean", 0.0)]
    unaware = [row("badnets", 9.0), row("badnets", 9.0, 51), *others]
    return list(evasion_rows(aware, unaware, calibration, 0.05))


def test_models_of_the_same_attacks_and_seeds_are_compared(rows):
    found = {(r["attack"], r["adaptive"]): (r["found"], r["models"]) for r in rows}
    assert found == {
        (EVERY, None): (2, 2),
        ("badnets", None): (2, 2),
        (EVERY, AWARE): (1, 2),
        ("badnets", AWARE): (1, 2),
    }


def test_scores_and_flags_are_per_detector(rows):
    before, after = (r for r in rows if r["attack"] == "badnets")
    assert all(before["scores"][name] > after["scores"][name] for name in NAMES)
    assert before["flagged_by"] == dict.fromkeys(NAMES, 2)


def test_the_table_shows_before_and_after(rows):
    lines = evasion_table(Results("", {}, rows)).splitlines()
    assert "| 90.0 → 90.0 | 100.0 → 100.0 |" in lines[2]
    assert lines[-1].endswith("| 2 → 1 (9–91 %) | 2 → 1 |")


def test_the_models_are_those_of_the_calibrated_study_but_for_the_attacker():
    plain, *adaptive = (jobs_of(PLANS[name])[1] for name in (CALIBRATED, AWARE, ABI))
    known = {(job.spec.attack, job.spec.seed, job.spec.ratio) for job in plain}
    for name, aware in zip((AWARE, ABI), adaptive, strict=True):
        assert {(job.spec.attack, job.spec.seed, job.spec.ratio) for job in aware} <= known
        assert all(job.spec.adaptive == name for job in aware)


def test_the_table_is_that_of_any_one_attacker(tmp_path):
    calibration = read_calibration(write_calibration(tmp_path / "a.json", classes=10, largest=3))
    aware, unaware = [row("badnets (abi)", 0.0)], [row("badnets", 9.0)]
    rows = list(evasion_rows(aware, unaware, calibration, 0.05, ABI))
    assert {each["adaptive"] for each in rows} == {None, ABI}
    assert evasion_table(Results("", {}, rows)).endswith("| 1 → 0 (0–79 %) | 1 → 0 |")
