# SPDX-License-Identifier: Apache-2.0
"""The D3 step in plain PyTorch: the specification the fused kernels are tested against.

One step of one param group, as in DESIGN ("One optimizer step, exactly"):

    delta = theta - theta_0,  D = ||delta||_p,  u = w * dD/dtheta
    theta <- Pi(rule(theta, g, u))                   (``d3fast.optim.rules``)

It runs on any device and in any floating dtype, and is written for reading rather than for speed.
Half types compute in float32 and keep their rounding error (``kahan``).
Source: Wei, Liu, Zha, arXiv 2411.09585.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.buffers import buffers_of, take_buffers
from d3fast.optim.constraints import Bounds, projection_coefficient, resolve_bounds
from d3fast.optim.kahan import compensation_of, kahan_load, kahan_store
from d3fast.optim.options import is_tracked
from d3fast.optim.rules import rule_of
from d3fast.optim.rules.base import buffer_dtype

State = MutableMapping[Tensor, dict[str, Any]]


@dataclass
class Member:
    """One parameter with a gradient, and its state.

    Args:
        param: the weights theta, any shape.
        grad: the gradient g, shape of ``param``, any strides.
        momentum_buffer: first moment of the rule, or ``None`` where it keeps none.
        first: the momentum buffer holds no earlier step.
        reference: theta_0, or ``None`` where the group is not tracked.
        compensation: rounding error of ``param`` in a half type, or ``None``.
        variance: second moment of the rule, or ``None``.
        steps: number of steps that the moments hold, 0-dim, or ``None``.
    """

    param: Tensor
    grad: Tensor
    momentum_buffer: Tensor | None
    first: bool
    reference: Tensor | None
    compensation: Tensor | None = None
    variance: Tensor | None = None
    steps: Tensor | None = None


def prepare_state(p: Tensor, state: State, group: Mapping[str, Any]) -> bool:
    """Make the tensors that a step keeps beside ``p`` where they are missing.

    Returns:
        Whether SGD's momentum buffer holds no step yet.
    """
    is_first, names = False, rule_of(group).buffers(group)
    if names:
        is_first = take_buffers(p, state, group)
        for column, name in names.items():
            state[p][name] = state[p][name].to(p.device, buffer_dtype(column, p, group))
    if is_tracked(group):
        compensation_of(p, state[p])
    return is_first


def members_of(group: Mapping[str, Any], state: State) -> list[Member]:
    """Return the parameters of a group that have a gradient, with their state."""
    members = []
    for p in group["params"]:
        if p.grad is None:
            continue
        first = prepare_state(p, state, group)
        theta_0 = state[p]["reference"] if is_tracked(group) else None
        remainder = compensation_of(p, state[p]) if is_tracked(group) else None
        v, s, steps = buffers_of(state.get(p, {}), group)
        members.append(Member(p, p.grad, v, first, theta_0, remainder, s, steps))
    return members


def joint_norm(tensors: Sequence[Tensor], p: float) -> Tensor:
    """Return the p-norm of several tensors taken as one vector (0-dim)."""
    norms = torch.stack([torch.linalg.vector_norm(t, p) for t in tensors])
    return torch.linalg.vector_norm(norms, p)


def distance(theta: Tensor, theta_0: Tensor, p: float, cached: Tensor | None = None) -> Tensor:
    """Return ``||theta - theta_0||_p``, 0-dim: a cached norm where there is one."""
    kind = torch.promote_types(theta.dtype, torch.float32)
    if cached is not None:
        return cached.to(kind)
    theta_0 = theta_0.to(theta.device, non_blocking=True)
    delta = theta.detach() - theta_0.to(torch.promote_types(theta.dtype, theta_0.dtype))
    return torch.linalg.vector_norm(delta, p, dtype=torch.float64).to(kind)


def distance_gradient(delta: Tensor, distance: Tensor, p: float) -> Tensor:
    """Return dD/dtheta for D = ||delta||_p: ``sign(delta) * (|delta|/D)^(p-1)``, 0 where D = 0."""
    ratio = delta.abs() / torch.where(distance > 0, distance, torch.ones_like(distance))
    return torch.where(distance > 0, delta.sign() * ratio ** (p - 1), torch.zeros_like(delta))


def step_group(
    members: Sequence[Member],
    group: Mapping[str, Any],
    *,
    grad_scale: Tensor | None = None,
) -> None:
    """Take one step for the members of one param group, in place.

    Args:
        members: the parameters that have a gradient.
        group: the options of a param group.
        grad_scale: 1-element tensor the gradients are divided by, in place (AMP).
    """
    if not members:
        return
    if grad_scale is not None:
        for m in members:
            m.grad.div_(grad_scale)
    joint = group["scope"] == "group"
    for norm_group in [list(members)] if joint else [[m] for m in members]:
        _step_norm_group(norm_group, group)


def _step_norm_group(norm_group: Sequence[Member], group: Mapping[str, Any]) -> None:
    dtypes = [torch.promote_types(m.param.dtype, torch.float32) for m in norm_group]
    thetas = [kahan_load(m.param, m.compensation) for m in norm_group]
    tracked = is_tracked(group)
    references = [
        m.reference.to(m.param.device, non_blocking=True).to(dt)
        for m, dt in zip(norm_group, dtypes, strict=True)
        if tracked and m.reference is not None
    ]
    pushes = _pushes(thetas, references, group) if tracked else [None] * len(norm_group)
    updated = [
        rule_of(group).update(theta, m, push, group)
        for m, theta, push in zip(norm_group, thetas, pushes, strict=True)
    ]
    bounds = resolve_bounds(group)
    if bounds is not None:
        updated = _project(updated, references, bounds)
    for m, theta in zip(norm_group, updated, strict=True):
        kahan_store(theta, m.param, m.compensation)


def _pushes(
    thetas: Sequence[Tensor], references: Sequence[Tensor], group: Mapping[str, Any]
) -> list[Tensor]:
    p = float(group["distance_p"])
    deltas = [t - r for t, r in zip(thetas, references, strict=True)]
    distance = joint_norm(deltas, p)
    return [group["distance_weight"] * distance_gradient(d, distance, p) for d in deltas]


def _project(
    thetas: Sequence[Tensor], references: Sequence[Tensor], bounds: Bounds
) -> list[Tensor]:
    lower, upper = bounds.scaled(joint_norm(references, 2.0))
    around_origin = bounds.center == "origin"
    vectors = (
        list(thetas) if around_origin else [t - r for t, r in zip(thetas, references, strict=True)]
    )
    c = projection_coefficient(joint_norm(vectors, 2.0), lower, upper)
    if around_origin:
        return [c * t for t in thetas]
    # theta_0 + (theta - theta_0) is not theta in floating point: an inactive set leaves theta.
    return [
        torch.where(c == 1, t, r + c * v)
        for t, r, v in zip(thetas, references, vectors, strict=True)
    ]
