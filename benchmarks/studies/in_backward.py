# SPDX-License-Identifier: Apache-2.0
"""Steps inside the backward pass: peak memory and CPU time of an iteration, beside torch's own.

A stack of linear layers without biases takes iterations of forward pass, backward pass and step:
with D3FusedSGD on the sphere and with torch's fused SGD, each with ordinary steps and with steps in
the backward pass (``step_in_backward`` and torch's ``_apply_optimizer_in_backward``, which builds
one optimizer per parameter). All four run in turn.
"""

from collections.abc import Callable, Mapping
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward  # type: ignore[attr-defined]

from benchmarks.speed.memory import allocations, peak
from benchmarks.speed.timing import Contender, cpu_seconds, interleave, quartiles
from benchmarks.studies.harness import save
from d3fast.optim import D3FusedSGD, step_in_backward
from d3fast.results.format import fixed, significant
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown

LR, MOMENTUM = 1e-4, 0.9
OURS, TORCH, INSIDE = "D3FusedSGD", "torch's fused SGD", ", in backward"


def _model(width: int, depth: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(depth)))


def _iteration(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, batch: torch.Tensor
) -> Callable[[], None]:
    def run() -> None:
        torch.autograd.backward(model(batch).square().mean())
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return run


def iterations(width: int, depth: int, rows: int) -> Mapping[str, Callable[[], None]]:
    """Return one iteration of each contender, each over a model of its own.

    Args:
        width: inputs and outputs of a layer.
        depth: number of layers.
        rows: size of the batch.
    """
    batch = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    found = {}
    for inside in (False, True):
        model = _model(width, depth)
        ours = D3FusedSGD(model.parameters(), lr=LR, momentum=MOMENTUM, backend="fused")
        if inside:
            step_in_backward(model, ours)
        found[OURS + INSIDE * inside] = _iteration(model, ours, batch)
        model = _model(width, depth)
        options = {"lr": LR, "momentum": MOMENTUM, "fused": True}
        if inside:
            _apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), options)
            found[TORCH + INSIDE] = _iteration(model, None, batch)
        else:
            sgd = torch.optim.SGD(model.parameters(), **options)
            found[TORCH] = _iteration(model, sgd, batch)
    return found


def measure(width: int, depth: int, rows: int, budget: float) -> list[dict[str, Any]]:
    """Return one row per contender.

    ``peak`` is the largest sum of what one iteration has allocated and not yet freed, in bytes per
    parameter; ``ratio`` the median over rounds of the time beside that of ordinary steps.
    """
    params, device = depth * width * width, torch.device("cpu")
    calls = iterations(width, depth, rows)
    peaks = {}
    for name, call in calls.items():
        call()  # makes the state
        peaks[name] = peak(allocations(call)) / params
    contenders = [Contender(name, call) for name, call in calls.items()]
    samples = interleave(contenders, device, budget, cpu_seconds)
    found = []
    for name, times in samples.items():
        q1, middle, q3 = quartiles(times)
        ordinary = samples[name.removesuffix(INSIDE)]
        found.append(
            {
                "kind": "in_backward",
                "contender": name,
                "params": params,
                "peak": peaks[name],
                "rounds": len(times),
                "ms": 1e3 * middle,
                "ms_q1": 1e3 * q1,
                "ms_q3": 1e3 * q3,
                "ratio": median(a / b for a, b in zip(times, ordinary, strict=True)),
            }
        )
    return found


def in_backward_table(results: Results) -> str:
    """Return one line per contender: peak memory and time of an iteration."""
    lines = [
        [
            row["contender"],
            significant(row["peak"]),
            significant(row["ms"]),
            f"{significant(row['ms_q1'])} to {significant(row['ms_q3'])}",
            f"{fixed(row['ratio'], 2)}×",
        ]
        for row in results.rows
    ]
    headings = ["steps", "peak B/param", "CPU ms", "quartiles", "/ ordinary steps"]
    return to_markdown(text_table(headings, lines))


def in_backward(
    width: Annotated[int, typer.Option(help="Inputs and outputs of a layer.")] = 1024,
    depth: Annotated[int, typer.Option(help="Number of layers.")] = 16,
    rows: Annotated[int, typer.Option(help="Size of the batch.")] = 8,
    seconds: Annotated[float, typer.Option(help="Time for the rounds.")] = 60.0,
) -> None:
    """Measure and write ``in-backward-cpu.json``."""
    torch.set_num_threads(1)
    settings = {"width": width, "depth": depth, "rows": rows, "lr": LR, "momentum": MOMENTUM}
    arguments = f"in-backward --width {width} --depth {depth} --rows {rows} --seconds {seconds:g}"
    save("in-backward-cpu", arguments, settings, measure(width, depth, rows, seconds))
