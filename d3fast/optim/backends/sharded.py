# SPDX-License-Identifier: Apache-2.0
"""The D3 step for DTensor parameters, with one all-reduce.

The norms of a step are those of full tensors, while each rank updates its local parts. The push u
is q/D^(p-1) with q = w sign(delta)|delta|^(p-1), so the point before the projection is linear in
s = D^(1-p), the one number that needs the other ranks:

    theta' = a + s b,    a: the SGD step without the push,    b = lr k q

(k: 1 without momentum, 1 - dampening with it, 1 + momentum with Nesterov's). The norm that
the projection needs is then a polynomial in s, and one all-reduce carries the sums of all tensors:

    sum |delta|^p,   sum x^2, sum x b, sum b^2   (x = a or a - theta_0),   sum theta_0^2

No norm is cached, so no edit of the weights can make one stale. A step allocates four float32
temporaries as large as the tracked local parts (docs/scaling.md).
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends import torch_backend
from d3fast.optim.backends.dtensor import (
    all_reduce,
    all_reduce_rows,
    counts_here,
    is_dtensor,
    is_sharded,
    local,
    mesh_of,
    placed,
)
from d3fast.optim.buffers import make_buffers
from d3fast.optim.constraints import Bounds, projection_coefficient, resolve_bounds
from d3fast.optim.kahan import compensation_of, kahan_load, kahan_store
from d3fast.optim.options import is_tracked

State = MutableMapping[Tensor, dict[str, Any]]

# Columns of the sums; TAKES_PART counts ranks with a gradient, REFUSED ranks with an error.
POWER, XX, XB, BB, REFERENCE, TAKES_PART = range(6)
REFUSED = 0


@dataclass
class _Move:
    """Step of one tracked parameter up to the unknown s: ``theta' = a + s b``."""

    member: torch_backend.Member
    a: Tensor
    b: Tensor
    velocity: tuple[Tensor, Tensor] | None  # v = first - s second
    sums: Tensor


def needs_allreduce(group: Mapping[str, Any]) -> bool:
    """Return whether a group's step needs an all-reduce, and so is taken without gradients too."""
    return is_sharded(group) and is_tracked(group)


def step_plain(group: Mapping[str, Any], state: State, grad_scale: Tensor | None = None) -> None:
    """Take one step of an untracked group with DTensors, in place; no rank waits for another.

    Args:
        group: the options of ``D3FusedSGD``; parameters without a gradient take no part.
        state: the optimizer's state; buffers lie as their parameters do.
        grad_scale: 1-element tensor the gradients are divided by, in place (AMP).
    """
    members = _members(group, state, grad_scale)
    torch_backend.step_group(list(members.values()), group)
    _count_step(group, members, state)


def step_tracked(
    groups: Sequence[Mapping[str, Any]], state: State, grad_scale: Tensor | None = None
) -> None:
    """Take one step of all tracked groups with DTensors, in place, on every rank of their meshes.

    Args:
        groups: groups that need an all-reduce; parameters without a gradient take no part.
        state: the optimizer's state; references and buffers lie as their parameters do.
        grad_scale: 1-element tensor the gradients are divided by, in place (AMP).

    Raises:
        ValueError: some ranks have a gradient that others lack, or a rank refused the step; on
            every rank, and no parameter has moved.
    """
    members = [_members(group, state, grad_scale) for group in groups]
    moves: dict[Tensor, _Move] = {}
    for group, own in zip(groups, members, strict=True):
        bounds = resolve_bounds(group)
        moves.update({p: _move(m, group, bounds) for p, m in own.items()})
    params, rows = _rows(groups)
    for row, p in zip(rows, params, strict=True):
        if p in moves:
            if counts_here(p):
                row[:TAKES_PART] = moves[p].sums
            row[TAKES_PART] = 1
    sums = all_reduce_rows(rows, params, torch.zeros_like(rows[0]))
    _check_agreement(sums, params)
    numbers = dict(zip(params, sums[:-1], strict=True))
    for group, own in zip(groups, members, strict=True):
        for norm_group in [list(own)] if group["scope"] == "group" else [[p] for p in own]:
            if norm_group:
                device = moves[norm_group[0]].a.device
                totals = torch.stack([numbers[p] for p in norm_group]).sum(0).to(device)
                _finish([moves[p] for p in norm_group], totals, group)
        _count_step(group, own, state)


def refuse(groups: Sequence[Mapping[str, Any]]) -> None:
    """Tell the other ranks, which wait in the all-reduce of the tracked groups, to raise."""
    joint = [group for group in groups if needs_allreduce(group)]
    if joint:
        params, rows = _rows(joint)
        footer = torch.zeros_like(rows[0])
        footer[REFUSED] = 1
        all_reduce_rows(rows, params, footer)


def _rows(groups: Sequence[Mapping[str, Any]]) -> tuple[list[Tensor], Tensor]:
    """Return all parameters, and a row of zeros for each."""
    params = [p for group in groups for p in group["params"]]
    device = local(params[0]).device
    return params, torch.zeros(len(params), TAKES_PART + 1, dtype=torch.float64, device=device)


def _members(
    group: Mapping[str, Any], state: State, grad_scale: Tensor | None
) -> dict[Tensor, torch_backend.Member]:
    make_buffers(group, state)
    active = [p for p in group["params"] if p.grad is not None]
    return {p: _member(p, state.get(p, {}), group, grad_scale) for p in active}


def _count_step(group: Mapping[str, Any], moved: Iterable[Tensor], state: State) -> None:
    for p in moved:
        if is_dtensor(p):  # its local part was written past autograd
            torch.autograd.graph.increment_version(p)
        if group["momentum"] != 0:
            taken = state[p].get("step")
            state[p]["step"] = torch.ones((), device="cpu") if taken is None else taken + 1


def _member(
    p: Tensor, state: dict[str, Any], group: Mapping[str, Any], grad_scale: Tensor | None
) -> torch_backend.Member:
    assert p.grad is not None
    if grad_scale is not None:
        local(p.grad).div_(grad_scale)
    buffer, first = None, False
    if group["momentum"] != 0:
        buffer, first = local(state["momentum_buffer"]), state.get("step", 1) == 0
    theta_0 = local(state["reference"]) if is_tracked(group) else None
    kept = compensation_of(p, state) if is_tracked(group) else None
    remainder = None if kept is None else local(kept)
    grad = local(placed(p.grad, p, "grad"))
    return torch_backend.Member(local(p), grad, buffer, first, theta_0, remainder)


def _check_agreement(sums: Tensor, params: Sequence[Tensor]) -> None:
    if float(sums[-1, REFUSED]) != 0:
        raise ValueError("another rank refused this step; its own error says why")
    for i, (p, count) in enumerate(zip(params, sums[:-1, TAKES_PART].tolist(), strict=True)):
        mesh = mesh_of(p)
        ranks = mesh.size() if mesh is not None else 1
        if count not in (0, ranks):
            raise ValueError(
                f"tracked parameter {i} has a gradient on {count:.0f} of {ranks} ranks"
            )


def _move(m: torch_backend.Member, group: Mapping[str, Any], bounds: Bounds | None) -> _Move:
    assert m.reference is not None
    dtype = torch.promote_types(m.param.dtype, torch.float32)
    theta, theta_0 = kahan_load(m.param, m.compensation), m.reference.to(dtype)
    p, delta = float(group["distance_p"]), theta - theta_0
    q = group["distance_weight"] * _powers(delta, p)
    grad = m.grad.to(dtype)
    d = (-grad if group["maximize"] else grad) + group["weight_decay"] * theta
    lr = group["lr"].reshape(()) if isinstance(group["lr"], Tensor) else group["lr"]
    velocity = None
    along, k = d, 1.0
    if m.momentum_buffer is not None:
        momentum, damping = group["momentum"], 1.0 if m.first else 1.0 - group["dampening"]
        v = momentum * m.momentum_buffer.to(dtype) + damping * d
        velocity = v, damping * q
        along, k = v, damping
        if group["nesterov"]:
            along, k = d + momentum * v, 1.0 + momentum * damping
    a, b = theta - lr * along, lr * k * q
    x = a if bounds is None or bounds.center == "origin" else a - theta_0
    return _Move(m, a, b, velocity, _sums(delta, x, b, theta_0, p, bounds is not None))


def _powers(delta: Tensor, p: float) -> Tensor:
    """``sign(delta) |delta|^(p-1)``: in float64 where float32 would lose small powers."""
    if p == 2:
        return delta
    if p == 1:
        return delta.sign()
    wide = delta.double()
    return wide.sign() * wide.abs() ** (p - 1)


def _sums(
    delta: Tensor, x: Tensor, b: Tensor, theta_0: Tensor, p: float, projected: bool
) -> Tensor:
    """Return the columns up to ``REFERENCE`` of one local part; 0 for unneeded projection sums."""
    sums = torch.zeros(TAKES_PART, dtype=torch.float64, device=delta.device)
    # Piece by piece: float64 copies of whole tensors would be memory and traffic.
    size = 1 << 16 if delta.is_cpu else 1 << 24
    pieces = (torch.split(t.reshape(-1), size) for t in (delta, x, b, theta_0))
    for narrow in zip(*pieces, strict=True):
        d, x_, b_, r = (t.double() for t in narrow)
        sums[POWER] += torch.dot(d, d) if p == 2 else power_sum(d, p)
        if projected:
            sums[XX] += torch.dot(x_, x_)
            sums[XB] += torch.dot(x_, b_)
            sums[BB] += torch.dot(b_, b_)
            sums[REFERENCE] += torch.dot(r, r)
    return sums


def power_sum(delta: Tensor, p: float) -> Tensor:
    """Return the sum of ``|delta|^p`` in float64, 0-dim."""
    wide = delta.double().abs()
    return wide.sum() if p == 1 else (wide**p).sum()


def _finish(norm_group: Sequence[_Move], sums: Tensor, group: Mapping[str, Any]) -> None:
    """Finish the steps of a norm group with its sums over all ranks."""
    bounds = resolve_bounds(group)
    p = float(group["distance_p"])
    distance = sums[POWER] ** (1 / p)
    s = torch.where(distance > 0, distance, torch.ones_like(distance)) ** (1 - p)
    c = torch.ones_like(s)
    if bounds is not None:
        square = sums[XX] + 2 * s * sums[XB] + s * s * sums[BB]
        lower, upper = bounds.scaled(sums[REFERENCE].sqrt())
        c = projection_coefficient(square.clamp(min=0).sqrt(), lower, upper)
    for move in norm_group:
        m = move.member
        theta = move.a + (s * move.b).to(move.a.dtype)
        if m.momentum_buffer is not None and move.velocity is not None:
            v, push = move.velocity
            m.momentum_buffer.copy_(v - s * push)
        if bounds is not None and bounds.center == "origin":
            theta = c * theta
        elif bounds is not None and m.reference is not None:
            theta_0 = m.reference.to(theta.dtype)
            theta = torch.where(c == 1, theta, theta_0 + c * (theta - theta_0))
        kahan_store(theta, m.param, m.compensation)


def distances(params: Sequence[Tensor], state: State, p: float) -> list[Tensor]:
    """Return ``||theta - theta_0||_p`` of full tensors, 0-dim; every rank has to call it."""
    device = local(params[0]).device
    rows = torch.zeros(len(params), 1, dtype=torch.float64, device=device)
    for row, theta in zip(rows, params, strict=True):
        if counts_here(theta):
            theta_0 = local(state[theta]["reference"])
            dtype = torch.promote_types(theta.dtype, theta_0.dtype)
            delta = local(theta).to(dtype) - theta_0.to(dtype)
            row[0] = power_sum(delta, p)
    norms = all_reduce_rows(rows, params, torch.zeros_like(rows[0]))[:-1, 0] ** (1 / p)
    kinds = [torch.promote_types(theta.dtype, torch.float32) for theta in params]
    return [norm.to(kind) for norm, kind in zip(norms, kinds, strict=True)]


def any_rank(found_inf: Tensor, groups: Sequence[Mapping[str, Any]]) -> Tensor:
    """Return the maximum of ``found_inf`` over the ranks: one overflow skips all steps."""
    meshes: list[Any] = []
    for p in (p for group in groups for p in group["params"]):
        if mesh_of(p) is not None and mesh_of(p) not in meshes:
            meshes.append(mesh_of(p))
    agreed = local(found_inf).detach().clone()
    for mesh in meshes:
        all_reduce(agreed, mesh, largest=True)
    return agreed
