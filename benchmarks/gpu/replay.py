# SPDX-License-Identifier: Apache-2.0
"""Median time of a step in replays and in eager calls: ``python -m benchmarks.gpu.replay``.

Events around one eager call measure the host where the GPU is faster, so the time of the GPU is
that of a replay: a graph of ten steps over tensors that are larger than L2, all contenders of a
workload in one interleaved loop. torch's fused SGD moves 20 bytes per fp32 parameter, d3fast 24.
"""

import gc
from collections.abc import Sequence

import torch

from benchmarks.gpu.figures import emit
from benchmarks.gpu.predictions import VARIANTS, WORKLOADS
from benchmarks.gpu.problems import (
    BALL_RADIUS,
    captured,
    d3,
    problem,
    sgd,
    worker_arguments,
)
from benchmarks.speed.timing import Contender, interleave, quartiles
from benchmarks.speed.workloads import Problem

STEPS = 10  # in one graph
FEW = 64  # elements; fewer may be drawn inside of a ball
TORCH_SGD = "torch SGD"


def measure(name: str, drawn: Problem, budget: float) -> None:
    """Print the medians of one workload.

    Args:
        name: of the workload.
        drawn: its tensors.
        budget: seconds, half of them for replays.
    """
    optimizers = {variant: d3(drawn, variant) for variant in VARIANTS}
    steps = {TORCH_SGD: sgd(drawn).step, **{v: opt.step for v, opt in optimizers.items()}}
    eager = [Contender(variant, step) for variant, step in steps.items()]
    replays = [Contender(v, captured(step, drawn.device, STEPS)) for v, step in steps.items()]
    for kind, contenders, count in (("replay", replays, STEPS), ("eager", eager, 1)):
        samples = interleave(contenders, drawn.device, budget / 2)
        for variant, seconds in samples.items():
            q1, median, q3 = (1e3 * s / count for s in quartiles(seconds))
            emit(f"{name}, {variant}: {kind}", median, "ms", q3 - q1)
    for variant, opt in optimizers.items():
        check_active(variant, opt.param_groups[0]["params"], drawn.references)


def check_active(
    variant: str, params: Sequence[torch.Tensor], references: Sequence[torch.Tensor]
) -> None:
    """Raise ``RuntimeError`` where a constraint was not met: the step timed would be another."""
    for p, theta_0 in zip(params, references, strict=True):
        w, r = p.detach().float(), theta_0.float()
        if not bool(torch.isfinite(w).all()):
            raise RuntimeError(f"{variant}: a weight is not finite")
        if variant == "norm_sphere":
            ratio = float(w.norm() / r.norm())
        elif variant == "distance_ball":
            ratio = float((w - r).norm() / (BALL_RADIUS * r.norm()))
        else:
            continue
        if abs(ratio - 1) > 1e-2 and w.numel() >= FEW:
            raise RuntimeError(f"{variant}: the norm is {ratio} times its radius")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every workload."""
    parser = worker_arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="for each workload")
    given = parser.parse_args(arguments)
    for name in WORKLOADS:
        measure(name, problem(name, given.device, given.shrink), given.seconds)
        gc.collect()


if __name__ == "__main__":
    main()
