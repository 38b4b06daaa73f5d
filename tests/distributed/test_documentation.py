"""The example of docs/distributed.md runs as it is written."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_example_runs_on_two_ranks(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/distributed.md").read_text(), re.S)
    (tmp_path / "repair.py").write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "repair.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/step-3/.metadata").exists()
