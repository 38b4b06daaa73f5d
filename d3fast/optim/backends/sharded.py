# SPDX-License-Identifier: Apache-2.0
"""The eager step of param groups with DTensors, whose norms are sums over the ranks of a mesh.

A step of tracked groups is ``update``, one all-reduce of the sums of all their norm groups, and
``project``; the kernels (``ShardPlan``) or plain PyTorch (``TorchShard``, ``RuleShard``) take the
parts. Every message ends with two counts of ranks: WAITING ranks could not update, because they
are to step other tensors than agreed or norms have to be measured; REFUSED ranks raise. Each rank
so learns in the same all-reduce what comes next, and none waits for one that went away::

    refused    raise
    waiting    compare what each rank is to step and raise where that differs; measure the norms;
               the waiting ranks update; add up the sums again
    none       correct norms that prove stale and add up the sums again; project

The first step begins with the comparison. In a later one, a rank that learns of another's error has
updated its own parts already.
"""

import hashlib
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends.choose import choose_backend
from d3fast.optim.backends.dtensor import (
    all_reduce,
    all_reduce_rows,
    counts_here,
    gather,
    is_dtensor,
    local,
    mesh_of,
)
from d3fast.optim.backends.group_plan import plan_key
from d3fast.optim.backends.shard_plan import BEFORE, LocalPlan, ShardPlan
from d3fast.optim.backends.shard_rule import RuleShard
from d3fast.optim.backends.shard_torch import TorchShard, power_sum, step_untracked
from d3fast.optim.buffers import check_step
from d3fast.optim.options import is_tracked
from d3fast.optim.rules import rule_of

Group = Mapping[str, Any]
State = MutableMapping[Tensor, dict[str, Any]]
Part = tuple[int, int, Group]  # number of the part over all groups, number of its group, the part
Shard = ShardPlan | TorchShard | RuleShard

COUNTS = 2  # that end a message: ranks that wait, ranks that refused the step


class ShardedStepper:
    """Take the steps of the param groups with DTensors, and keep their plans."""

    def __init__(self) -> None:
        self._untracked: dict[int, LocalPlan] = {}
        self._shards: dict[int, Shard] = {}
        self._agreed: tuple[Any, ...] | None = None  # what every rank is to step
        self._meshes: list[Any] = []
        self._places: list[Tensor | None] = []  # of a mesh's numbers in a message; None: all
        self._sums = torch.zeros(COUNTS, dtype=torch.float64)

    def drop_plans(self) -> None:
        """Let the next step build every plan again, and so measure every norm."""
        self._untracked.clear()
        self._shards.clear()

    def step(
        self,
        groups: Sequence[Group],
        parts: Sequence[Part],
        state: State,
        grad_scale: Tensor | None = None,
    ) -> None:
        """Take one step, in place, on every rank of the parameters' meshes.

        Args:
            groups: all param groups of the optimizer.
            parts: the parts of them that have DTensors; a parameter without a gradient takes no
                part.
            state: the optimizer's state; references and buffers lie as their parameters do.
            grad_scale: 1-element tensor the gradients are divided by, in place (AMP).

        Raises:
            ValueError: the ranks were to step different tensors, or one refused the step; on every
                rank.
        """
        tracked = [part for part in parts if is_tracked(part[2])]
        try:
            self._step_tracked(groups, parts, tracked, state, grad_scale)
        except Exception:  # on every rank
            self._agreed = None
            self.drop_plans()
            raise
        for index, number, group in parts:
            if not is_tracked(group):
                self._step_untracked(index, number, group, state, grad_scale)

    def refuse(self, groups: Sequence[Group], parts: Sequence[Part]) -> None:
        """Tell the other ranks, which take the step, that this one raises."""
        if self._agreed is None:
            self._agree(groups, parts, refused=True)
        else:
            self._exchange(self._sums, refused=True)
            self._agreed = None

    def _step_tracked(
        self,
        groups: Sequence[Group],
        parts: Sequence[Part],
        tracked: Sequence[Part],
        state: State,
        grad_scale: Tensor | None,
    ) -> None:
        outline = tuple(map(_outline, tracked))
        totals, waiting = self._sums, True
        with self._refusal(groups, parts):
            ready = self._check(parts, state) and outline == self._agreed
            if ready:
                self._update(grad_scale)
        if self._agreed is not None:
            totals, waiting = self._exchange(self._sums, waiting=not ready)
        if waiting:
            self._agree(groups, parts)
            self._agreed = outline
            totals = self._measure(tracked, state, ready)
        if ready:
            waiting = self._correct(totals) or waiting
        else:
            with self._refusal(groups, parts):
                for shard, rows in self._rows(totals):
                    shard.prepare(state, rows)
                self._update(grad_scale)
        if waiting:
            totals, _ = self._exchange(self._sums)
        for (_, _, group), (shard, rows) in zip(
            (part for part in tracked if part[0] in self._shards), self._rows(totals), strict=True
        ):
            shard.project(group, state, rows)

    @contextmanager
    def _refusal(self, groups: Sequence[Group], parts: Sequence[Part]) -> Iterator[None]:
        try:
            yield
        except Exception:
            self.refuse(groups, parts)
            raise

    def _check(self, parts: Sequence[Part], state: State) -> bool:
        """Check the parts that have no valid plan; return whether all tracked ones can update."""
        ready = True
        for index, number, group in parts:
            params = [p for p in group["params"] if p.grad is not None]
            if is_tracked(group):
                shard = self._shards.get(index)
                holds = not params if shard is None else shard.ready(group, state)
                ready = ready and holds
            else:
                plan = self._untracked.get(index)
                holds = plan is not None and plan.matches(group, state)
                if not holds:
                    self._untracked.pop(index, None)
            if not holds or isinstance(self._shards.get(index), TorchShard):
                check_step(number, group, params, state)
                choose_backend(number, group)
        return ready

    def _step_untracked(
        self, index: int, number: int, group: Group, state: State, grad_scale: Tensor | None
    ) -> None:
        if all(p.grad is None for p in group["params"]):
            return
        plan = self._untracked.get(index)
        if plan is None and choose_backend(number, group) == "reference":
            step_untracked(group, state, grad_scale)
            return
        if plan is None:
            plan = self._untracked[index] = LocalPlan(group, state)
        plan.step(group, state, grad_scale)

    def _rows(self, message: Tensor) -> Iterator[tuple[Shard, Tensor]]:
        """Yield the shards with their rows of a message, one row per norm group."""
        start = 0
        for shard in self._shards.values():
            end = start + len(shard.rows) * shard.columns
            yield shard, message[start:end].view(-1, shard.columns)
            start = end

    def _update(self, grad_scale: Tensor | None) -> None:
        for shard, sums in self._rows(self._sums):
            shard.update(grad_scale, sums)

    def _correct(self, totals: Tensor) -> bool:
        pairs = zip(self._rows(totals), self._rows(self._sums), strict=True)
        corrected = [shard.correct(total, sums) for (shard, total), (_, sums) in pairs]
        return any(corrected)

    def _measure(self, tracked: Sequence[Part], state: State, moved: bool) -> Tensor:
        """Return the sums over all ranks that ``prepare`` and ``correct`` need.

        Args:
            tracked: the tracked parts.
            state: the optimizer's state.
            moved: this rank has updated; it measured the norms before that.
        """
        if not moved:
            self._build(tracked, state)
        measured = torch.zeros_like(self._sums)
        pairs = zip(self._rows(measured), self._rows(self._sums), strict=True)
        for (shard, rows), (_, sums) in pairs:
            if not isinstance(shard, TorchShard):
                shard.measure(rows)
                if moved:
                    rows[:, BEFORE] = sums[:, BEFORE]
        return self._exchange(measured)[0]

    def _build(self, tracked: Sequence[Part], state: State) -> None:
        self._shards = {}
        for index, number, group in tracked:
            if any(p.grad is not None for p in group["params"]):
                self._shards[index] = _kind_of(number, group)(group, state)
        owners = [
            mesh_of(p) for s in self._shards.values() for p in s.rows for _ in range(s.columns)
        ]
        counts = range(len(owners), len(owners) + COUNTS)
        device = self._sums.device
        self._sums = self._sums.new_zeros(len(owners) + COUNTS)
        self._places = []
        for mesh in self._meshes:
            at = [i for i, owner in enumerate(owners) if owner == mesh]
            is_all = len(at) == len(owners)
            self._places.append(None if is_all else torch.tensor([*at, *counts], device=device))

    def _exchange(
        self, numbers: Tensor, waiting: bool = False, refused: bool = False
    ) -> tuple[Tensor, bool]:
        """Return the sums of a message over all ranks, and whether a rank waits.

        Raises:
            ValueError: another rank refused the step.
        """
        totals, counts = numbers.clone(), [float(waiting), float(refused)]
        here = torch.tensor(counts, dtype=totals.dtype)
        for mesh, places in zip(self._meshes, self._places, strict=True):
            totals[-COUNTS:] = here
            message = totals if places is None else totals[places]
            all_reduce(message, mesh)
            if places is not None:
                totals[places] = message
            counts = list(map(max, counts, message[-COUNTS:].tolist()))
        if counts[1] and not refused:
            raise ValueError("another rank refused this step; its own error says why")
        return totals, counts[0] > 0

    def _agree(self, groups: Sequence[Group], parts: Sequence[Part], refused: bool = False) -> None:
        """Compare what every rank is to step.

        Raises:
            ValueError: that differs, or another rank refused the step; on every rank.
        """
        params = [p for group in groups for p in group["params"]]
        self._meshes = []
        for p in filter(is_dtensor, params):
            self._sums = self._sums.to(local(p).device)  # where the ranks' backend can send it
            if mesh_of(p) not in self._meshes:
                self._meshes.append(mesh_of(p))
        for mesh in self._meshes:
            entries = _entries(mesh, {id(p): i for i, p in enumerate(params)}, parts)
            digest = hashlib.sha256(repr(entries).encode()).digest()
            numbers = [int.from_bytes(digest[i : i + 6], "big") for i in (0, 6)]
            message = self._sums.new_tensor([refused, *numbers, *(-n for n in numbers)])
            was_refused, *ends = all_reduce(message, mesh, largest=True).tolist()
            if was_refused:
                if refused:
                    continue
                raise ValueError("another rank refused this step; its own error says why")
            if ends[:2] != [-n for n in ends[2:]]:
                raise ValueError(_difference(gather(entries, mesh)))


def _kind_of(number: int, group: Group) -> type[Shard]:
    if choose_backend(number, group) == "fused":
        return ShardPlan
    return RuleShard if rule_of(group).counts_steps else TorchShard


def _outline(part: Part) -> tuple[Any, ...]:
    index, _, group = part
    return index, plan_key(group), tuple([p.grad is not None for p in group["params"]])


Entry = tuple[str, bool, bool, str]  # parameter, whether tracked, whether with gradient, options


def _entries(mesh: Any, positions: Mapping[int, int], parts: Sequence[Part]) -> list[Entry]:
    """Return what this rank is to do with each parameter on a mesh."""
    entries = []
    for _, _, group in parts:
        tracked = is_tracked(group)
        names = group.get("param_names") or [str(positions[id(p)]) for p in group["params"]]
        for name, p in zip(names, group["params"], strict=True):
            if mesh_of(p) == mesh:
                options = repr(plan_key(group)) if tracked else ""
                entries.append((name, tracked, tracked and p.grad is not None, options))
    return entries


def _difference(ranks: Sequence[Sequence[Entry]]) -> str:
    """Return the text of the error for ranks that are to step different tensors."""
    by_name = [{entry[0]: entry for entry in entries} for entries in ranks]
    for name in dict.fromkeys(entry[0] for entries in ranks for entry in entries):
        found = [entries.get(name, (name, False, False, "")) for entries in by_name]
        tracked, with_gradient = sum(e[1] for e in found), sum(e[2] for e in found)
        if tracked not in (0, len(ranks)):
            return f"parameter {name} is tracked on {tracked} of {len(ranks)} ranks"
        if with_gradient not in (0, len(ranks)):
            return (
                f"tracked parameter {name} has a gradient on {with_gradient} of {len(ranks)} ranks"
            )
        if len({entry[3] for entry in found}) > 1:
            return f"the options of parameter {name} differ between ranks"
    return "the order of the parameters differs between ranks"


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
