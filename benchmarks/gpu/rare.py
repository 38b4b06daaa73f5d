# SPDX-License-Identifier: Apache-2.0
"""Steps outside of the usual path: ``python -m benchmarks.gpu.rare``.

An edit through ``.data``, which only the kernel can notice; one norm over all tensors of a large
group; gradients that do not start on 16 bytes, as behind a small bias in a bucket of DDP.
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from benchmarks.gpu.figures import emit
from benchmarks.gpu.problems import captured, d3, problem, synchronize, worker_arguments
from benchmarks.gpu.replay import STEPS
from benchmarks.speed.timing import Contender, interleave, quartiles, seconds
from benchmarks.speed.workloads import Problem

TIMES = 15


def edited(drawn: Problem) -> None:
    """Time the step after an edit through ``.data``, and one without it."""
    opt = d3(drawn, "norm_sphere")
    p = opt.param_groups[0]["params"][0]

    def edit() -> None:
        opt.step()
        p.data.mul_(1.01)

    for name, before in (("1x25M, .data edit: step", edit), ("1x25M, no edit: step", None)):
        contender = Contender(name, opt.step, before)
        times = [seconds(contender, drawn.device, 1) for _ in range(TIMES)]
        emit(name, 1e3 * statistics.median(times), "ms")
    if not bool(torch.isfinite(p).all()):
        raise RuntimeError("a weight is not finite after an edit")


def replay_seconds(steps: dict[str, Callable[[], object]], drawn: Problem) -> dict[str, float]:
    """Return the median seconds of a step in replays, by contender."""
    contenders = [Contender(k, captured(step, drawn.device, STEPS)) for k, step in steps.items()]
    samples = interleave(contenders, drawn.device, 5.0)
    return {name: quartiles(values)[1] / STEPS for name, values in samples.items()}


def joint_norm(drawn: Problem) -> None:
    """Time the sphere over one norm of all tensors, and over one per tensor."""
    opts = {scope: d3(drawn, "norm_sphere", scope=scope) for scope in ("tensor", "group")}
    found = replay_seconds({scope: opt.step for scope, opt in opts.items()}, drawn)
    for scope, time in found.items():
        emit(f"ViT-B/16, scope={scope}: replay", 1e3 * time, "ms")


def misaligned(drawn: Problem) -> None:
    """Time a free step with gradients one element off, relative to aligned ones."""
    bucket = torch.empty(sum(g.numel() for g in drawn.grads) + 1, device=drawn.device)
    views, at = [], 1
    for grad in drawn.grads:
        views.append(bucket[at : at + grad.numel()].view_as(grad).copy_(grad))
        at += grad.numel()
    opts = {
        "aligned": d3(drawn, "free"),
        "misaligned": d3(replace(drawn, grads=views), "free"),
    }
    found = replay_seconds({name: opt.step for name, opt in opts.items()}, drawn)
    emit("10x2.5M, misaligned gradients: ratio", found["misaligned"] / found["aligned"], "x")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all three."""
    given = worker_arguments(__doc__).parse_args(arguments)
    for name, measure in (("1x25M", edited), ("ViT-B/16", joint_norm), ("10x2.5M", misaligned)):
        drawn = problem(name, given.device, given.shrink)
        measure(drawn)
        synchronize(drawn.device)


if __name__ == "__main__":
    main()
