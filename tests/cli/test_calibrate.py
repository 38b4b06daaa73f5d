"""``d3fast calibrate``: samples in, scores of clean models out, which check and inspect take."""

import json

import numpy as np
import pytest

from d3fast.audit.calibration import read_calibration
from d3fast.results.store import read_results

QUICK = "--models 2 --epochs 1 --steps 2 --samples 6 --devices cpu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate")
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (24, 8, 8), np.uint8)
    np.savez(folder / "clean.npz", images=images, labels=np.arange(24) % 4)
    return folder


@pytest.fixture
def calibrate(call, folder, monkeypatch):
    monkeypatch.chdir(folder)
    given = "calibrate --model preact_resnet_tiny --data clean.npz --out scores.json"
    return lambda more="": call(f"{given} {QUICK} {more}")


def test_it_writes_scores_that_an_inspection_takes(calibrate, call, tiny, folder):
    result = calibrate()
    assert result.exit_code == 0, result.output
    assert "2 clean models" in result.stdout
    found = read_calibration(folder / "scores.json")
    assert (len(found.clean), found.about.model, found.about.data) == (
        2,
        "preact_resnet_tiny",
        "clean.npz",
    )
    assert str(folder) not in read_results(folder / "scores.json").command
    suspect = f"--model preact_resnet_tiny --checkpoint {tiny}/plain.safetensors --data clean.npz"
    inspected = call(f"inspect {suspect} --steps 2 --calibration scores.json --out a --json")
    verdict = json.loads(inspected.stdout)["rows"][-1]
    assert verdict["basis"].startswith("Calibrated on 2 clean models of this architecture")
    assert verdict["calibration"] == found.sha256
    assert 1 / 3 <= verdict["p_value"] <= 1


def test_a_second_run_continues_where_the_first_one_stopped(calibrate, folder):
    calibrate()
    cells = {path: path.stat().st_mtime_ns for path in (folder / "scores" / "cells").iterdir()}
    assert calibrate("--models 3").exit_code == 0
    after = {path: path.stat().st_mtime_ns for path in (folder / "scores" / "cells").iterdir()}
    assert cells.items() <= after.items()
    assert len(read_calibration(folder / "scores.json").clean) == 3


def test_a_calibration_of_other_options_is_refused(calibrate, call, tiny):
    calibrate()
    suspect = f"--model preact_resnet_tiny --checkpoint {tiny}/plain.safetensors --data clean.npz"
    refused = call(f"inspect {suspect} --steps 3 --calibration scores.json --out b")
    assert refused.exit_code == 2
    assert "the calibration does not fit" in refused.stderr


def test_the_weights_alone_are_compared_too(calibrate, call, tiny):
    calibrate()
    result = call(
        f"check preact_resnet_tiny --checkpoint {tiny}/plain.safetensors --calibration scores.json"
    )
    assert result.exit_code == 2  # a factory needs samples
    whole = call(f"check {tiny}/plain.safetensors --calibration scores.json --out c")
    assert "Calibrated on 2 clean models" in " ".join(whole.output.split())
