# SPDX-License-Identifier: Apache-2.0
"""Check of a GPU machine in ten minutes without network: ``make gpu-check``.

Builds the extension, runs the GPU tests, runs compute-sanitizer, reads registers and spills of the
kernels, measures their DRAM bytes with ncu, runs the benchmarks, and writes one JSON with a row per
step. A step that fails or cannot run does not stop the next one.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import steps
from benchmarks.gpu.resources import resources
from benchmarks.gpu.tools import Failed, Limits, Skipped, tools
from benchmarks.machine import machine_name
from d3fast.results.store import Results

RESULTS = Path(__file__).resolve().parent.parent / "results"
TOTAL_SECONDS = 570.0


@dataclass(frozen=True)
class Step:
    """One step of the check.

    Attributes:
        name: name in the result file.
        seconds: time limit.
        run: runs the step and returns columns of its row.
    """

    name: str
    seconds: float
    run: Callable[[Limits], dict[str, Any]]


STEPS = (
    Step("build", 150, steps.build),
    Step("resources", 60, resources),
    Step("tests", 150, steps.gpu_tests),
    Step("memcheck", 75, steps.memcheck),
    Step("racecheck", 75, steps.racecheck),
    Step("dram bytes", 60, steps.dram_bytes),
    Step("benchmarks", 360, steps.benchmarks),
)


def check(step: Step, seconds: float, out: Path) -> dict[str, Any]:
    """Run one step and return its row; exceptions become the outcome ``failed``.

    Example:
        >>> def absent(limits): raise Skipped("there is no such tool")
        >>> row = check(Step("demo", 10, absent), 10, Path("."))
        >>> row["outcome"], row["reason"]
        ('skipped', 'there is no such tool')
    """
    started = time.monotonic()
    row: dict[str, Any] = {"kind": "gpu-check", "step": step.name, "outcome": "passed"}
    found: dict[str, Any] = {}
    reason = None
    try:
        if seconds < 5:
            raise Skipped("the time limit of the check is reached")
        found = step.run(Limits(min(step.seconds, seconds), out))
    except Skipped as error:
        row["outcome"], reason = "skipped", str(error)
    except Failed as error:
        row["outcome"], reason, found = "failed", str(error), error.found
    except Exception as error:  # an error in one step must not stop the others
        row["outcome"], reason = "failed", f"{type(error).__name__}: {error}"
    return {**row, "reason": reason, "seconds": round(time.monotonic() - started, 1), **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all steps, print a line for each, write the JSON; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.check", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--steps", help="only these, by name, separated by commas")
    given = parser.parse_args(arguments)
    selected = set(given.steps.split(",")) if given.steps else {s.name for s in STEPS}
    unknown = selected - {s.name for s in STEPS}
    if unknown:
        parser.error(f"unknown step {', '.join(sorted(unknown))}")
    given.out.mkdir(parents=True, exist_ok=True)
    ends = time.monotonic() + TOTAL_SECONDS
    rows = []
    for step in (s for s in STEPS if s.name in selected):
        print(f"{step.name} ...", flush=True)
        row = check(step, ends - time.monotonic(), given.out)
        rows.append(row)
        reason = f": {row['reason']}" if row["reason"] else ""
        print(f"{step.name}: {row['outcome']} in {row['seconds']} s{reason}", flush=True)
    gpu = machine_name(torch.device("cuda")) if torch.cuda.is_available() else "no-gpu"
    path = given.out / f"gpu-check-{gpu}-{date.today().isoformat()}.json"
    settings = {
        "steps": [s.name for s in STEPS if s.name in selected],
        "cuda": torch.version.cuda,
        "tools": tools(),
    }
    Results("python -m benchmarks.gpu.check", settings, rows).write(path)
    print(f"results: {path}")
    return int(any(row["outcome"] == "failed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
