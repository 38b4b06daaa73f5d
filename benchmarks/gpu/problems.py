# SPDX-License-Identifier: Apache-2.0
"""What the workers of the GPU check step over: workloads, optimizers, captured steps.

On a CPU a captured step is the step itself, so that every worker can be run small without a GPU
(``--device cpu --shrink 1000``).
"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.gpu.predictions import VARIANTS, WORKLOADS
from benchmarks.shapes import ParameterList, resnet18, vit_b16
from benchmarks.speed.contenders import LR, MOMENTUM, optimizer
from benchmarks.speed.workloads import Problem, Workload, draw
from d3fast.optim import D3FusedSGD
from d3fast.runtime.devices import resolve_device

WARMUP = 3
BALL_RADIUS = 0.5  # of ||theta_0||, which weights are drawn away from theta_0


def _all_of(name: str, model: ParameterList) -> Workload:
    return Workload(name, tuple(model.shapes.values()))


_WORKLOADS: Mapping[str, Workload] = {
    "1x250M": Workload("1x250M", ((250_000_000,),)),
    "1x25M": Workload("1x25M", ((25_000_000,),)),
    "10x25M": Workload("10x25M", ((25_000_000,),) * 10),
    "10x2.5M": Workload("10x2.5M", ((2_500_000,),) * 10),
    "10x2.5M, bf16": Workload("10x2.5M, bf16", ((2_500_000,),) * 10, dtype=torch.bfloat16),
    "60x36k": Workload("60x36k", ((36_000,),) * 60),
    "ResNet-18": _all_of("ResNet-18", resnet18()),
    "ViT-B/16": _all_of("ViT-B/16", vit_b16()),
}
# Gradients point outwards, so an active bound is reached in every step.
_OPTIONS: Mapping[str, dict[str, Any]] = {
    "free": {"constraint": None},
    "norm_ball inside": {"constraint": "norm_ball", "radius": 10.0},
    "norm_sphere": {"constraint": "norm_sphere"},
    "distance_ball": {"constraint": "distance_ball", "radius": BALL_RADIUS},
}
assert set(WORKLOADS) < set(_WORKLOADS)
assert set(VARIANTS) == set(_OPTIONS)


def worker_arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that every worker has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shrink", type=int, default=1, help="divide all sizes, for a smoke run")
    return parser


def problem(name: str, device: str, shrink: int = 1) -> Problem:
    """Draw the tensors of a workload, none of them zeros but the momenta before the first step."""
    workload = _WORKLOADS[name]
    workload = workload.shrunk(shrink) if shrink > 1 else workload
    return draw(workload, resolve_device(device))


def d3(problem: Problem, variant: str, **options: Any) -> D3FusedSGD:
    """Return an optimizer over a copy of a problem's weights, some steps behind it."""
    opt = optimizer(problem, **{**_OPTIONS[variant], **options})
    for _ in range(WARMUP):
        opt.step()
    return opt


def sgd(problem: Problem) -> torch.optim.SGD:
    """Return torch's fused SGD over a copy of a problem's weights, some steps behind it."""
    params = [torch.nn.Parameter(theta.clone()) for theta in problem.thetas]
    for p, grad in zip(params, problem.grads, strict=True):
        p.grad = grad
    opt = torch.optim.SGD(params, lr=LR, momentum=MOMENTUM, fused=True)
    for _ in range(WARMUP):
        opt.step()
    return opt


def captured(step: Callable[[], object], device: torch.device, steps: int = 1) -> Callable[[], Any]:
    """Return the replay of a CUDA graph of some steps; on a CPU the steps themselves.

    Args:
        step: takes a step; has run before.
        device: of its tensors.
        steps: number of steps in the graph.
    """

    def several() -> None:
        for _ in range(steps):
            step()

    if device.type != "cuda":
        return several
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # as torch's documentation of graphs asks for
        several()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        several()
    return graph.replay


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
