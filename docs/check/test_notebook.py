# SPDX-License-Identifier: Apache-2.0
"""The notebook in docs/examples runs from its first to its last cell, and has no outputs in git."""

import json
import os
import re
import subprocess
import sys

import pytest

from docs.check.pages import EXAMPLES, ROOT, page

NOTEBOOK = EXAMPLES / "check_and_repair.ipynb"
# A process of its own: the packages of Jupyter warn of their own futures.
EXECUTE = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=500, kernel_name="python3").execute(cwd=".")
nbformat.write(notebook, sys.argv[2])
"""


def cells(path):
    held = json.loads(path.read_text(encoding="utf-8"))
    return [cell for cell in held["cells"] if cell["cell_type"] == "code"]


def text(cell):
    """What a cell printed or showed."""
    outputs = cell["outputs"]
    shown = [part.get("text", part.get("data", {}).get("text/html", "")) for part in outputs]
    return "".join("".join(part) for part in shown)


def test_it_has_no_outputs_in_git_and_a_page_shows_it():
    for cell in cells(NOTEBOOK):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    assert NOTEBOOK.name in page("examples")


@pytest.mark.slow
def test_it_goes_from_a_checkpoint_to_a_page(tmp_path):
    for package in ("nbclient", "ipykernel"):
        pytest.importorskip(package, reason="needs nbclient and ipykernel")
    done = subprocess.run(
        [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(tmp_path / "done.ipynb")],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "JUPYTER_PLATFORM_DIRS": "1",
            "IPYTHONDIR": str(tmp_path / "ipython"),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    _, check, repair, shown, rates = map(text, cells(tmp_path / "done.ipynb"))
    assert "Possible backdoor" in check
    assert "Written to" in repair
    assert "iframe srcdoc" in shown
    suspect, repaired = (float(rate) for rate in re.findall(r"ASR +([\d.]+)%", rates))
    assert suspect > 90
    assert repaired < suspect
