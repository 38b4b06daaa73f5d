# SPDX-License-Identifier: Apache-2.0
"""The step of ``D3FusedAdamW`` beside ``torch.optim.AdamW(fused=True)``, per byte moved.

    python -m benchmarks.speed.adamw --json benchmarks/results/NAME.json

AdamW reads weights, gradients and two moments and writes all but the gradients: 28 bytes per fp32
parameter. A D3 step reads the reference as well, 32. All optimizers are interleaved in one process,
so a slow phase of the machine slows each of them; a row has the ratio of the times per byte, one
number per round.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.speed.contenders import LR, WEIGHT
from benchmarks.speed.timing import Contender, cpu_seconds, interleave, quartiles
from benchmarks.speed.timing import seconds as wall_seconds
from benchmarks.speed.workloads import Problem, Workload, draw, workloads
from d3fast.optim import D3FusedAdamW
from d3fast.results.format import fixed, value_range
from d3fast.results.store import Results
from d3fast.results.table import Table, text_table, to_markdown, to_rich

TORCH, BYTES = "torch.optim.AdamW(fused=True)", {"plain": 28, "tracked": 32}
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "plain": {"distance_weight": 0.0, "constraint": None},
    "free": {"constraint": None, "decoupled_push": False},
    "sphere": {"constraint": "norm_sphere", "decoupled_push": False},
    "sphere, decoupled push": {"constraint": "norm_sphere", "decoupled_push": True},
}
NAMES = ("60x36k", "10x2.5M", "1x25M")


def contenders(problem: Problem) -> list[Contender]:
    """Return torch's fused AdamW and the variants of ours, each over weights of its own."""
    others = torch.optim.AdamW(_parameters(problem), lr=LR, fused=True)
    found = [Contender(TORCH, others.step)]
    for name, options in VARIANTS.items():
        group = {"params": _parameters(problem), "reference": problem.references}
        options = {"distance_weight": WEIGHT, **options}
        opt = D3FusedAdamW([group], lr=LR, track="all", backend="fused", **options)
        found.append(Contender(name, opt.step))
    return found


def _parameters(problem: Problem) -> list[torch.nn.Parameter]:
    params = [torch.nn.Parameter(theta.clone()) for theta in problem.thetas]
    for p, grad in zip(params, problem.grads, strict=True):
        p.grad = grad
    return params


def rows(workload: Workload, samples: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return one row per variant.

    Args:
        workload: the tensors.
        samples: seconds per step by contender, one per round.
    """
    found = []
    for name in VARIANTS:
        size = BYTES["plain" if name == "plain" else "tracked"]
        pairs = zip(samples[name], samples[TORCH], strict=True)
        times = [ours / theirs for ours, theirs in pairs]
        per_byte = sorted(ratio * BYTES["plain"] / size for ratio in times)
        found.append(
            {
                "workload": workload.name,
                "variant": name,
                "bytes": size * workload.tracked_numel,
                "rounds": len(times),
                "ms": 1e3 * quartiles(list(samples[name]))[1],
                "torch_ms": 1e3 * quartiles(list(samples[TORCH]))[1],
                "time_ratio": quartiles(times)[1],
                "per_byte_ratio": quartiles(per_byte)[1],
                "per_byte_ratios": per_byte,
            }
        )
    return found


def _table(measured: Sequence[Mapping[str, Any]]) -> Table:
    """Return a line per workload and variant."""
    lines = [
        (
            f"{row['workload']}, {row['variant']}",
            fixed(row["time_ratio"], 2),
            fixed(row["per_byte_ratio"], 2),
            value_range(row["per_byte_ratios"][0], row["per_byte_ratios"][-1], 2),
        )
        for row in measured
    ]
    return text_table(("tensors, step", "time / torch's", "per byte", "range"), lines)


def adamw_table(results: Results) -> str:
    """Return the table of a result file."""
    return to_markdown(_table(results.rows))


def compare(
    seconds: Annotated[float, typer.Option(help="Seconds per workload.")] = 20.0,
    scale: Annotated[int, typer.Option(min=1, help="Shrink the tensors, for a smoke run.")] = 1,
    cpu_time: Annotated[bool, typer.Option(help="CPU time, for a machine that is shared.")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="File of the results.")] = None,
) -> None:
    """Print the ratios of our steps to those of torch's fused AdamW."""
    measured: list[dict[str, Any]] = []
    load, clock = os.getloadavg()[0], cpu_seconds if cpu_time else wall_seconds
    for workload in workloads(gpu=False):
        if workload.name in NAMES:
            small = workload.shrunk(scale) if scale > 1 else workload
            cpu = torch.device("cpu")
            with torch.no_grad():
                able = contenders(draw(small, cpu))
                measured += rows(small, interleave(able, cpu, seconds, clock))
    Console().print(to_rich(_table(measured), f"load {load:.1f}"))
    if json_path is not None:
        command = f"python -m benchmarks.speed.adamw --seconds {seconds:g}"
        command += " --cpu-time" if cpu_time else ""
        threads = torch.get_num_threads()
        settings = {
            "seconds": seconds,
            "cpu_time": cpu_time,
            "threads": threads,
            "load_before": load,
        }
        Results(command, settings, measured).write(json_path)


if __name__ == "__main__":
    typer.run(compare)
