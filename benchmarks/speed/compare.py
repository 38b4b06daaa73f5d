# SPDX-License-Identifier: Apache-2.0
"""The step and the repair of this checkout against those of another one, built in place.

    python -m benchmarks.speed.compare OTHER --json benchmarks/results/NAME.json

Each round runs one process per checkout, in turns, and takes the ratio of the two: a slow phase of
the machine slows both. A process times the sphere step on three lists of tensors with one thread
and with all cores, and one repair of a small network. Both checkouts need names that exist in both:
``D3FusedSGD`` and ``detoxify``.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from d3fast.results.format import fixed, value_range
from d3fast.results.store import Results
from d3fast.results.table import Table, text_table, to_markdown, to_rich

HERE = Path(__file__).resolve().parents[2]

# Runs in the other checkout as well, so it imports nothing of this package.
PROBE = """
import json, os, statistics, sys, time
import torch
from torch import nn
from d3fast import D3Config, D3FusedSGD, detoxify

def step_seconds(count, numel, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    params = [nn.Parameter(0.02 * torch.randn(100, numel // 100)) for _ in range(count)]
    optimizer = D3FusedSGD(params, lr=1e-3, momentum=0.9)
    for p in params:
        p.grad = 1e-3 * torch.randn_like(p)
    for _ in range(5):
        optimizer.step()
    times = []
    end = time.perf_counter() + 1.5
    while time.perf_counter() < end:
        start = time.perf_counter()
        optimizer.step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)

def repair_seconds():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 169, 10))
    images, labels = torch.rand(1024, 1, 28, 28), torch.arange(1024) % 10
    loader = list(zip(images.split(64), labels.split(64)))
    start = time.perf_counter()
    detoxify(model, loader, D3Config(epochs=6), progress=False)
    return time.perf_counter() - start

cores = len(os.sched_getaffinity(0))
found = {
    f"step, {count} x {numel / 1e6:g}M, threads {threads}": step_seconds(count, numel, threads)
    for count, numel in ((60, 36_000), (10, 2_500_000), (1, 25_000_000))
    for threads in sorted({1, cores})
}
found["repair"] = repair_seconds()
print(json.dumps(found))
"""


def probe(checkout: Path) -> dict[str, float]:
    """Return the seconds of every case, measured in a process of its own.

    Args:
        checkout: root of a checkout whose extension was built in place.

    Raises:
        subprocess.CalledProcessError: the process failed; its error output is shown.
    """
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        env=env,
        cwd=checkout,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def ratio_rows(rounds: list[tuple[dict[str, float], dict[str, float]]]) -> list[dict[str, Any]]:
    """Return one row per case: the ratio of this checkout to the other, a number per round.

    Args:
        rounds: seconds here and seconds there.
    """
    rows = []
    for case in rounds[0][0]:
        ratios = sorted(here[case] / there[case] for here, there in rounds)
        rows.append(
            {
                "case": case,
                "ratio": statistics.median(ratios),
                "ratios": ratios,
                "here_seconds": statistics.median(here[case] for here, _ in rounds),
                "there_seconds": statistics.median(there[case] for _, there in rounds),
            }
        )
    return rows


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    lines = [
        (row["case"], fixed(row["ratio"], 2), value_range(row["ratios"][0], row["ratios"][-1], 2))
        for row in rows
    ]
    return text_table(("case", "here / there", "range"), lines)


def compare_table(results: Results) -> str:
    """Return the table of a result file."""
    return to_markdown(_table(results.rows))


def compare(
    other: Annotated[Path, typer.Argument(help="Root of the other checkout.")],
    rounds: Annotated[int, typer.Option(min=1, help="Processes per checkout.")] = 7,
    json_path: Annotated[Path | None, typer.Option("--json", help="File of the results.")] = None,
) -> None:
    """Print the ratios of this checkout's seconds to those of another one."""
    measured = []
    for number in range(rounds):
        order = [HERE, other.resolve()]
        found = {path: probe(path) for path in (order if number % 2 == 0 else order[::-1])}
        measured.append((found[HERE], found[other.resolve()]))
    rows = ratio_rows(measured)
    Console().print(to_rich(_table(rows), f"{rounds} rounds"))
    if json_path is not None:
        git = ["git", "-C", str(other), "rev-parse", "HEAD"]
        commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
        command = f"python -m benchmarks.speed.compare OTHER --rounds {rounds}"
        Results(command, {"rounds": rounds, "other_commit": commit}, rows).write(json_path)


if __name__ == "__main__":
    typer.run(compare)
