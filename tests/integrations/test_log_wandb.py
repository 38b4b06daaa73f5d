"""An offline run of Weights & Biases, in a process of its own, whose end completes the file."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("wandb", reason="needs wandb")

SCRIPT = """
from pathlib import Path
from d3fast.integrations.log_wandb import open_sink
for name in ("run-1", "run-2"):
    sink = open_sink(Path.cwd(), name, {"learning_rate": 0.1}, False)
    sink.log(1, {"held_out_loss": 0.5})
    sink.log(2, {"held_out_loss": 0.25})
    sink.close()
"""


def test_runs_are_written_offline_one_after_the_other(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    for path in files:
        content = path.read_bytes()
        assert content.count(b"held_out_loss") >= 2
        assert b"learning_rate" in content
    assert {b"run-1" in path.read_bytes() for path in files} == {True, False}
