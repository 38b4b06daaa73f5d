"""Study of the weight detectors: which models are scanned, on which seeds, and what a row holds."""

import pytest

from benchmarks.studies import inspection, inspection_rates, weights
from d3fast.audit.detectors.registry import WEIGHT_DETECTORS
from d3fast.detox import save_weights
from d3fast.io.files import make_folder
from d3fast.results.store import Results

CLEAN, BACKDOORED, SCANS = inspection.jobs_of(weights.WANTED[0])


def test_no_model_that_was_looked_at_for_a_choice_is_counted():
    for plan in weights.WANTED:
        assert not {0, 1} & {*plan.backdoored, *plan.clean}


def test_every_attack_of_the_inspection_is_scanned():
    attacks = [name for plan in weights.WANTED for name in plan.attacks]
    assert sorted(attacks) == sorted(inspection.PLANS["digits"].attacks)
    assert all(job.source in [*CLEAN, *BACKDOORED] for job in SCANS)


def test_a_row_has_the_score_of_every_detector(tmp_path, monkeypatch):
    job = next(job for job in SCANS if job.source in CLEAN)
    make_folder(tmp_path / "models")
    save_weights(job.spec.initial_model(job.spec.splits()), job.source.weights(tmp_path))
    trained = {"attack": "clean", "target": None, "acc": 0.9, "asr": None}
    monkeypatch.setattr(weights, "finished_row", lambda *_: trained)
    row = weights.scanned(job, tmp_path)
    assert row.items() >= {**trained, "kind": "inspected", "seed": job.spec.seed}.items()
    assert list(row["signs"]) == list(WEIGHT_DETECTORS)
    assert {row["attack"] for row in inspection_rates.rates([row], weights.RATE)} == {"clean"}


def test_a_model_that_its_floor_refused_is_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "finished_row", lambda *_: {"refused": "a floor"})
    assert weights.scanned(SCANS[0], tmp_path) is None


def test_the_table_of_seconds_has_a_line_per_large_model():
    row = {"kind": "timing", "model": "ResNet-50", "parameters": 25_557_032, "cpu_seconds": 1.72}
    table = weights.seconds_table(Results("", {}, [row, {"kind": "rate"}]))
    assert table.splitlines()[2:] == ["| ResNet-50 | 25.6 | 1.7 |"]


@pytest.mark.slow
def test_large_shapes_take_seconds():
    pytest.importorskip("transformers", reason="needs the extra d3fast[transformers]")
    for row in weights.timings():
        assert row["cpu_seconds"] < 10
