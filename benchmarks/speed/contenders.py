# SPDX-License-Identifier: Apache-2.0
"""Variants of ``D3FusedSGD``: without a constraint and with each, active and inactive.

All variants use one optimizer over one set of weights; the untimed call before a timed one changes
its options. The untimed call also moves the weights so that the timed call must, or must not,
project: gradients point outwards, and an active bound differs from the bound of the untimed call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from benchmarks.speed.timing import Contender
from benchmarks.speed.workloads import FULL, Problem, Workload
from d3fast.optim import D3FusedSGD

LR, MOMENTUM, WEIGHT = 1e-4, 0.9, 1.0
OURS = "d3fast"


@dataclass(frozen=True)
class Variant:
    """Options of one variant.

    Attributes:
        constraint: name of the constraint, or ``None``.
        radius: relative radius.
        before: options of the untimed step where they differ.
        active: True if the timed step must project.
    """

    constraint: str | None
    radius: Any = None
    before: Mapping[str, Any] = field(default_factory=dict)
    active: bool = True


_ON_SPHERE = {"constraint": "norm_sphere", "radius": None}
_AT_ONE = {"constraint": "distance_shell", "radius": (1.0, 1.0)}
FREE, SPHERE, BALL_INSIDE = f"{OURS} free", f"{OURS} norm_sphere", f"{OURS} norm_ball, inside"
VARIANTS: Mapping[str, Variant] = {
    FREE: Variant(None, active=False),
    SPHERE: Variant("norm_sphere"),
    f"{OURS} norm_ball": Variant("norm_ball", before=_ON_SPHERE),
    BALL_INSIDE: Variant("norm_ball", 10.0, active=False),
    f"{OURS} distance_ball": Variant("distance_ball", 0.9, before=_AT_ONE),
    f"{OURS} distance_ball, inside": Variant("distance_ball", 10.0, active=False),
    f"{OURS} distance_floor": Variant("distance_floor", 1.1, before=_AT_ONE),
    f"{OURS} distance_floor, inside": Variant("distance_floor", 0.01, active=False),
    f"{OURS} distance_shell": Variant("distance_shell", (0.01, 0.9), before=_AT_ONE),
    f"{OURS} distance_shell, inside": Variant("distance_shell", (0.01, 10.0), active=False),
}


# The options of a workload with a narrow state.
NARROW = {"momentum_dtype": torch.bfloat16, "reference_dtype": torch.bfloat16}

# For weights of a half type: momentum in fp32, and everything in fp32.
WIDE_MOMENTUM, SINGLE = f"{SPHERE}, momentum fp32", f"{SPHERE}, all fp32"


def variants(workload: Workload) -> list[str]:
    """Return the names of the variants of a workload."""
    main = [FREE, SPHERE, BALL_INSIDE]
    if workload.half:
        return [*main, WIDE_MOMENTUM, SINGLE]
    return list(VARIANTS) if workload.constraints == FULL else main


def optimizer(problem: Problem, **options: Any) -> D3FusedSGD:
    """Return ``D3FusedSGD`` over a copy of a problem's weights with gradients."""
    params = [torch.nn.Parameter(theta.clone()) for theta in problem.thetas]
    for p, grad in zip(params, problem.grads, strict=True):
        p.grad = grad
    count = len(problem.references)
    groups: list[dict[str, Any]] = [{"params": params[:count], "reference": problem.references}]
    if params[count:]:
        groups.append({"params": params[count:], "distance_weight": 0.0, "constraint": None})
    narrow = NARROW if problem.workload.narrow else {}
    options = {"lr": LR, "momentum": MOMENTUM, "distance_weight": WEIGHT, **narrow, **options}
    return D3FusedSGD(groups, **{"track": "all", "backend": "fused", **options})


def ours(problem: Problem) -> list[Contender]:
    """Return all variants of a workload; those with other dtypes have their own optimizer."""
    opt = optimizer(problem)
    opt.step()
    names = [name for name in variants(problem.workload) if name in VARIANTS]
    found = [_contender(name, opt, VARIANTS[name], _held(opt)) for name in names]
    if problem.workload.half:
        for name, other in (
            (WIDE_MOMENTUM, optimizer(problem, momentum_dtype=torch.float32)),
            (SINGLE, optimizer(_in_float32(problem))),
        ):
            other.step()
            found.append(_contender(name, other, VARIANTS[SPHERE], _held(other)))
    return found


def _in_float32(problem: Problem) -> Problem:
    lists = {
        name: [t.float() for t in getattr(problem, name)]
        for name in ("thetas", "grads", "momenta", "references")
    }
    return replace(problem, **lists)


def _held(opt: D3FusedSGD) -> list[torch.Tensor]:
    return [
        value
        for state in opt.state.values()
        for name, value in state.items()
        if name != "momentum_buffer"
    ]


def _contender(name: str, opt: D3FusedSGD, variant: Variant, held: list[torch.Tensor]) -> Contender:
    timed = {"constraint": variant.constraint, "radius": variant.radius}

    def warm() -> None:
        group = opt.param_groups[0]
        group.update({**timed, **variant.before})
        opt.step()
        group.update(timed)

    return Contender(name, opt.step, warm, held)
