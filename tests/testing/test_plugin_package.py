"""A package of somebody else: installed by pip, tested by its contracts, used by the commands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from d3fast.detox import save_weights
from d3fast.models import make_model

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests" / "plugin_package"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder that pip installed the package into."""
    place = tmp_path_factory.mktemp("plugin")
    shutil.copytree(SOURCE, place / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target", place / "site"]
    _run("-m", "pip", "install", "--quiet", *options, place / "source", cwd=place)
    return place / "site"


def _run(*arguments, cwd, path=(), code=0):
    entries = [*map(str, path), str(ROOT)]
    ran = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entries), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture
def d3fast(site, tmp_path):
    """Run a command with the package on the path."""
    return lambda line, code=0: _run(
        "-m", "d3fast", *line.split(), cwd=tmp_path, path=[site], code=code
    )


def test_the_package_passes_the_contracts(site):
    tests = SOURCE / "tests" / "test_contracts.py"
    _run("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, cwd=site, path=[site])


def test_the_benchmark_runs_its_attack_and_its_defence_in_workers(d3fast, tmp_path):
    line = (
        "benchmark --preset demo --seeds 1 --attacks stripe --model preact_resnet_tiny "
        "--defenses half-head,plugin_example.half_head:HalfHead --devices cpu:2 --out runs"
    )
    d3fast(line)
    table = json.loads((tmp_path / "runs" / "table.json").read_text())
    rows = {row["defense"]: row for row in table["rows"] if row["kind"] == "repair"}
    named, imported = rows["half-head"], rows["plugin_example.half_head:HalfHead"]
    assert {key: named[key] for key in ("attack", "refused", "epochs")} == {
        "attack": "stripe",
        "refused": None,
        "epochs": 10,
    }
    assert (named["acc"], named["asr"]) == (imported["acc"], imported["asr"])
    (cell,) = (tmp_path / "runs" / "cells").glob("*stripe-half-head-*.json")
    versions = json.loads(cell.read_text())["settings"]["plugins"]
    package = "d3fast-plugin-example 0.1.0"
    assert versions == {"attack stripe": package, "defence half-head": package}


def test_an_inspection_runs_its_detector(d3fast, tmp_path):
    torch.manual_seed(0)
    save_weights(make_model("preact_resnet_tiny", 4, 1), tmp_path / "model.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(tmp_path / "clean.npz", images=images, labels=np.arange(40) % 4)
    line = "inspect --model model.safetensors --data clean.npz --any-accuracy --out runs"
    d3fast(f"{line} --detectors head,mean-score --fail-on none")
    (document,) = tmp_path.glob("runs/**/inspect.json")
    document = json.loads(document.read_text())
    names = [row["name"] for row in document["rows"] if row["kind"] == "sign"]
    assert names == ["head", "mean-score"]
    assert document["settings"]["plugins"] == {
        "detectors mean-score": "d3fast-plugin-example 0.1.0"
    }
    refused = d3fast(f"{line} --detectors mean", code=2)
    assert "'wave', 'mean-score'" in refused
