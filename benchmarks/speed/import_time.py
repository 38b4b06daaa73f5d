# SPDX-License-Identifier: Apache-2.0
"""What ``from d3fast import D3FusedSGD`` adds to ``import torch``, in CPU time of a new process.

``python -m benchmarks.speed.import_time`` writes ``benchmarks/results/import-time.json``.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from d3fast.results.store import Results
from d3fast.runtime import environment

RESULTS = Path(__file__).parents[1] / "results"
# The clock of the process: on a shared machine wall-clock times are those of the other work.
_CODE = """
import time
start = time.process_time()
import torch
torch_there = time.process_time()
from d3fast import D3FusedSGD
print(1000 * (torch_there - start), 1000 * (time.process_time() - torch_there))
"""


def import_times(rounds: int) -> list[tuple[float, float]]:
    """Return CPU milliseconds of torch and of the optimizer after it, each in a new process.

    One more process comes first and leaves the bytecode that an installation has.
    """
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}

    def once() -> tuple[float, float]:
        command = [sys.executable, "-c", _CODE]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        torch_ms, own_ms = map(float, done.stdout.split())
        return torch_ms, own_ms

    once()
    return [once() for _ in range(rounds)]


def rows(times: list[tuple[float, float]]) -> list[dict[str, Any]]:
    """Return one row per import: the best and all CPU times, in milliseconds."""
    columns = zip(("torch", "d3fast.D3FusedSGD"), zip(*times, strict=True), strict=True)
    return [
        {"import": name, "best_ms": round(min(ms), 1), "cpu_ms": [round(x, 1) for x in ms]}
        for name, ms in columns
    ]


def main() -> None:
    """Measure, print and write ``benchmarks/results/import-time.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "import-time.json")
    given = parser.parse_args()
    found = rows(import_times(given.rounds))
    command = f"python -m benchmarks.speed.import_time --rounds {given.rounds}"
    settings = {"rounds": given.rounds, "build": environment.build_info()}
    Results(command, settings, found).write(given.out)
    for row in found:
        print(f"{row['import']:<20} {row['best_ms']:8.1f} ms")


if __name__ == "__main__":
    main()
