# SPDX-License-Identifier: Apache-2.0
"""The step of param groups with DTensors in plain PyTorch, for what the kernels do not serve.

It is the twin of ``shard_plan`` and takes any p-norm, any dtypes and any device. The push u is
q/D^(p-1) with q = w sign(delta)|delta|^(p-1), so the point before the projection is linear in
s = D^(1-p), the one number that needs the other ranks:

    theta' = a + s b,    a: the SGD step without the push,    b = lr k q

(k: 1 without momentum, 1 - dampening with it, 1 + momentum with Nesterov's). The norm that the
projection needs is then a polynomial in s, and the sums of all ranks settle it:

    sum |delta|^p,   sum x^2, sum x b, sum b^2   (x = a or a - theta_0),   sum theta_0^2

No norm is cached, so no edit of the weights can make one stale. A step allocates four float32
temporaries as large as the tracked local parts.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends import native, torch_backend
from d3fast.optim.backends.dtensor import (
    all_reduce_rows,
    counts_here,
    is_dtensor,
    local,
    placed,
)
from d3fast.optim.backends.shard_plan import start_counting
from d3fast.optim.buffers import buffers_of, make_buffers
from d3fast.optim.constraints import Bounds, projection_coefficient, resolve_bounds
from d3fast.optim.kahan import compensation_of, kahan_load, kahan_store
from d3fast.optim.options import is_tracked
from d3fast.optim.rules import rule_of

Group = Mapping[str, Any]
State = MutableMapping[Tensor, dict[str, Any]]

COLUMNS = 5  # of the sums
POWER, XX, XB, BB, REFERENCE = range(COLUMNS)


@dataclass
class _Move:
    """Step of one tracked parameter up to the unknown s: ``theta' = a + s b``."""

    member: torch_backend.Member
    a: Tensor
    b: Tensor
    velocity: tuple[Tensor, Tensor] | None  # v = first - s second
    sums: Tensor


class TorchShard:
    """The step of a tracked param group; see ``ShardPlan`` for the methods' meaning.

    Args:
        group: the param group.
        state: the optimizer's state; missing buffers are made here.
    """

    columns = COLUMNS

    def __init__(self, group: Group, state: State) -> None:
        self._group, self._state = group, state
        params = [p for p in group["params"] if p.grad is not None]
        joint = group["scope"] == "group"
        self._norm_groups = [params] if joint else [[p] for p in params]
        self.rows: Sequence[Tensor] = [members[0] for members in self._norm_groups]
        self._moves: list[list[_Move]] = []

    def ready(self, group: Group, state: State) -> bool:
        """Return True: nothing is kept from step to step."""
        self._group, self._state = group, state
        return True

    def measure(self, sums: Tensor) -> None:
        """Write nothing: ``update`` needs nothing from other ranks."""
        sums.zero_()

    def prepare(self, state: State, totals: Tensor) -> None:
        """Do nothing."""

    def update(self, grad_scale: Tensor | None, sums: Tensor) -> None:
        """Compute the step up to s, and write this rank's sums; no parameter moves yet."""
        sums.zero_()
        members = members_of(self._group, self._state, grad_scale)
        bounds = resolve_bounds(self._group)
        self._moves = [
            [_move(members[p], self._group, bounds) for p in params] for params in self._norm_groups
        ]
        for row, params, moves in zip(sums, self._norm_groups, self._moves, strict=True):
            for p, move in zip(params, moves, strict=True):
                if counts_here(p):
                    row += move.sums.to(row.device)

    def correct(self, totals: Tensor, sums: Tensor) -> bool:
        """Return False: no norm is cached."""
        return False

    def project(self, group: Group, state: State, totals: Tensor) -> None:
        """Write the step."""
        for moves, total in zip(self._moves, totals, strict=True):
            _finish(moves, total, group)
        self._moves = []
        count_step(group, state)


def step_untracked(group: Group, state: State, grad_scale: Tensor | None) -> None:
    """Take one step of an untracked group with DTensors, in place; no rank waits for another.

    Args:
        group: the options of ``D3FusedSGD``; parameters without a gradient take no part.
        state: the optimizer's state; buffers lie as their parameters do.
        grad_scale: 1-element tensor the gradients are divided by, in place (AMP).
    """
    make_buffers(group, state)
    torch_backend.step_group(list(members_of(group, state, grad_scale).values()), group)
    count_step(group, state)


def count_step(group: Group, state: State) -> None:
    """Note in the state, and in the versions of DTensors, that a step was taken."""
    moved = [p for p in group["params"] if p.grad is not None]
    start_counting(moved, group, state)
    native.increment_versions(list(filter(is_dtensor, moved)))


def members_of(
    group: Group, state: State, grad_scale: Tensor | None
) -> dict[Tensor, torch_backend.Member]:
    """Return the local parts of the parameters that have a gradient, with their state."""
    make_buffers(group, state)
    active = [p for p in group["params"] if p.grad is not None]
    return {p: _member(p, state.get(p, {}), group, grad_scale) for p in active}


def _member(
    p: Tensor, state: dict[str, Any], group: Mapping[str, Any], grad_scale: Tensor | None
) -> torch_backend.Member:
    assert p.grad is not None
    if grad_scale is not None:
        local(p.grad).div_(grad_scale)
    rule = rule_of(group)
    first = not rule.counts_steps and bool(rule.buffers(group)) and state.get("step", 1) == 0
    momentum, variance, steps = buffers_of(state, group)
    theta_0 = local(state["reference"]) if is_tracked(group) else None
    kept = compensation_of(p, state) if is_tracked(group) else None
    remainder = None if kept is None else local(kept)
    grad = local(placed(p.grad, p, "grad"))
    return torch_backend.Member(
        local(p), grad, local(momentum), first, theta_0, remainder, local(variance), steps
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
    """Return the columns of one local part; 0 for unneeded projection sums."""
    sums = torch.zeros(COLUMNS, dtype=torch.float64, device=delta.device)
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
