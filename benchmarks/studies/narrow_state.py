# SPDX-License-Identifier: Apache-2.0
"""Error of 1,000 steps with momentum and reference in bf16 beside fp32 weights.

The steps are those of the kernels. The problems, the float64 steps and the measures are those of
the precision study, with weights and gradients in fp32; theta_0 is not rounded in the float64 runs.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
import typer
from torch import Tensor, nn

from benchmarks.studies.precision import (
    LRS,
    MOMENTUM,
    SEEDS,
    STEPS,
    Problem,
    errors,
    in_percent,
    problems,
    run_float64,
    run_seeds,
)
from d3fast.optim import D3FusedSGD
from d3fast.results.jobs import RunDir
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown

# (momentum_dtype, reference_dtype), and the bytes of a step per tracked parameter.
KINDS: Mapping[str, tuple[Mapping[str, torch.dtype], int]] = {
    "fp32": ({}, 24),
    "bf16 reference": ({"reference_dtype": torch.bfloat16}, 22),
    "bf16 momentum and reference": (
        {"reference_dtype": torch.bfloat16, "momentum_dtype": torch.bfloat16},
        18,
    ),
}
MEASURES = {"way": "displacement error", "distance": "distance error", "norm": "norm deviation"}


def run_float32(problem: Problem, kind: str, lr: float, steps: int) -> Tensor:
    """Return the fp32 weights after ``steps`` steps of the kernels.

    Args:
        problem: start, reference and gradients.
        kind: one of ``KINDS``.
        lr: learning rate.
        steps: number of steps.
    """
    theta = nn.Parameter(problem.start.clone())
    options = {"lr": lr, "momentum": MOMENTUM, "reference": [problem.theta_0], "track": "all"}
    opt = D3FusedSGD([theta], backend="fused", **options, **KINDS[kind][0])
    for t in range(steps):
        theta.grad = problem.gradient(t, theta.detach())
        opt.step()
    return theta.detach()


def study(seed: int, steps: int = STEPS) -> Iterator[dict[str, Any]]:
    """Yield one row per problem, learning rate and kind."""
    for start, problem in problems(torch.float32, seed):
        for lr in LRS:
            want = run_float64(problem, lr, steps)
            about = {"case": problem.name, "start": start, "lr": lr, "seed": seed}
            for kind, (_, size) in KINDS.items():
                got = run_float32(problem, kind, lr, steps)
                measured = errors(problem, got, want)
                yield {"kind": "run", **about, "state": kind, "bytes": size, **measured}


@dataclass(frozen=True)
class StudyJob:
    """All runs of one seed.

    Attributes:
        seed: draws the weights and the gradients.
    """

    seed: int
    kind: ClassVar[str] = "narrow-state"

    @property
    def name(self) -> str:
        """The seed."""
        return f"seed {self.seed}"

    def run(self, run_dir: RunDir, progress: bool) -> list[dict[str, Any]]:
        """Return the rows of the seed."""
        return list(study(self.seed))


def narrow_table(results: Results) -> str:
    """Return a line per measure, start and kind, a column per learning rate, in percent."""
    lrs = sorted({row["lr"] for row in results.rows})
    starts = dict.fromkeys(row["start"] for row in results.rows)
    lines = []
    for (measure, title), start in itertools.product(MEASURES.items(), starts):
        for kind, (_, size) in KINDS.items():
            own = [r for r in results.rows if (r["state"], r["start"]) == (kind, start)]
            cells = [in_percent([r[measure] for r in own if r["lr"] == lr]) for lr in lrs]
            lines.append([title, start, kind, str(size), *cells])
    headings = ["measure", "start", "state", "B/step", *(f"lr {lr:g}" for lr in lrs)]
    return to_markdown(text_table(headings, lines))


def narrow_state(
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = SEEDS,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
) -> None:
    """Run all seeds and write ``narrow-state-cpu.json``."""
    run_seeds("narrow-state", [StudyJob(seed) for seed in range(seeds)], workers)
