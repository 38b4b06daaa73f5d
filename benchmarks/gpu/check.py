# SPDX-License-Identifier: Apache-2.0
"""Check of a GPU machine in eight stages, without network: ``python -m benchmarks.gpu.check``.

    1  build, copy ceiling on random data, GPU tests (graphs first, no compile tests)
    2  compute-sanitizer: memcheck, racecheck, synccheck
    3  10,000 steps on the sphere twice, streams, replays with eager steps between, 2^31 elements
    4  median time of a step in graph replays, torch's fused SGD and eager calls beside
    5  DRAM bytes and L2 hits by ncu, registers and spills
    6  an edit through .data, one norm over a large group, misaligned gradients
    7  host time of a step
    8  the step of shards on one rank, NCCL's all-reduce included

Every stage can be run alone (``--stage 4``), takes less than nine minutes and writes one JSON file;
beside each figure stands what was predicted before (``benchmarks.gpu.predictions``). Clocks and
other settings of the card are left as they are. Exit codes: 0 all passed, 1 a step failed, 2 there
is no GPU.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.figures import Figure, comparison
from benchmarks.gpu.stages import MOST_SECONDS, STAGES, Stage, Step
from benchmarks.gpu.tools import Failed, Skipped, capability, tools
from benchmarks.machine import machine_name
from d3fast.results.store import Results

RESULTS = Path(__file__).resolve().parent.parent / "results"


def run_step(step: Step, seconds: float) -> tuple[dict[str, Any], list[Figure]]:
    """Run one step; return its row and its figures. No exception leaves it.

    Args:
        step: the step.
        seconds: its time limit.

    Example:
        >>> def absent(seconds): raise Skipped("there is no such tool")
        >>> row, figures = run_step(Step("demo", 10, absent), 10)
        >>> row["outcome"], row["reason"], figures
        ('skipped', 'there is no such tool', [])
    """
    started = time.monotonic()
    outcome, reason, figures = "passed", None, []
    try:
        if seconds < 5:
            raise Skipped("the time limit of the stage is reached")
        figures = step.run(seconds)
    except Skipped as error:
        outcome, reason = "skipped", str(error)
    except Failed as error:
        outcome, reason, figures = "failed", str(error), error.figures
    except Exception as error:  # an error in one step must not stop the others
        outcome, reason = "failed", f"{type(error).__name__}: {error}"
    took = round(time.monotonic() - started, 1)
    row = {"kind": "gpu-step", "step": step.name, "outcome": outcome, "reason": reason}
    return {**row, "seconds": took}, figures


def run_stage(stage: Stage, machine: str) -> list[dict[str, Any]]:
    """Run a stage, print a line per step and per figure; return its rows."""
    print(f"stage {stage.number}: {stage.title}", flush=True)
    ends = time.monotonic() + MOST_SECONDS
    rows: list[dict[str, Any]] = []
    for at, step in enumerate(stage.steps):
        row, figures = run_step(step, stage.limit(at, ends - time.monotonic()))
        measured = [{"kind": "gpu-figure", "step": step.name, **f.row(machine)} for f in figures]
        rows += [row, *measured]
        reason = f": {row['reason']}" if row["reason"] else ""
        print(f"{step.name}: {row['outcome']} in {row['seconds']} s{reason}", flush=True)
        if measured:
            print(comparison(measured), flush=True)
        if at == 0 and row["outcome"] != "passed":
            row["outcome"] = "failed"  # nothing else can run
            break
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Run stages; write one JSON file for each."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu.check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    numbers = [stage.number for stage in STAGES]
    parser.add_argument("--stage", type=int, choices=numbers, nargs="+", default=numbers)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the JSON files")
    given = parser.parse_args(arguments)
    if capability() is None:
        print("gpu-check: torch sees no GPU", file=sys.stderr)
        return 2
    given.out.mkdir(parents=True, exist_ok=True)
    machine = machine_name(torch.device("cuda"))
    failed = False
    for stage in (s for s in STAGES if s.number in given.stage):
        rows = run_stage(stage, machine)
        command = f"python -m benchmarks.gpu.check --stage {stage.number}"
        settings = {"stage": stage.number, "cuda": torch.version.cuda, "tools": tools()}
        path = given.out / f"gpu-check-{stage.number}-{machine}-{date.today().isoformat()}.json"
        Results(command, settings, rows).write(path)
        print(f"results: {path.name}", flush=True)
        failed = failed or any(
            row.get("outcome") not in (None, "passed", "skipped") for row in rows
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
