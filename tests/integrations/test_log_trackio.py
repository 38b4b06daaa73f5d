"""A run in the database of trackio, in a process of its own, which reads TRACKIO_DIR once."""

import os
import sqlite3
import subprocess
import sys

import pytest

pytest.importorskip("trackio", reason="needs trackio")

SCRIPT = """
from pathlib import Path
from d3fast.integrations.log_trackio import open_sink
sink = open_sink(Path.cwd(), "run-1", {"lr": 0.1}, False)
sink.log(1, {"loss": 0.5})
sink.log(2, {"loss": 0.25})
sink.close()
"""


def test_the_epochs_are_in_the_database_and_nothing_is_printed(tmp_path):
    env = {k: v for k, v in os.environ.items() if k != "TRACKIO_DIR"}
    env["PYTHONPATH"] = os.pathsep.join(sys.path)
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    (path,) = tmp_path.glob("trackio/*.db")
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step")
        found = [(name, step, "loss" in str(values)) for name, step, values in rows]
    assert found == [("run-1", 1, True), ("run-1", 2, True)]
