# SPDX-License-Identifier: Apache-2.0
"""The step of param groups with DTensors through the kernels, on the parts that this rank holds.

A step of a tracked group has three parts (``csrc/common/options.h``, ``Phase``):

    update    theta, buffers <- the step without projection, pushed with the cached norm
              sums            <- before, after, weight, inner of every norm group (``struct Sums``)
    correct   only where the sums of all ranks say that the cached norm was stale
    project   theta <- Pi(theta), cached norm <- ||theta - theta_0||, from the sums of all ranks

Between them ``sharded`` adds up the sums of all ranks. The cached norms, those of whole tensors or
of the whole group, are kept here and not in the optimizer's state.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends import native
from d3fast.optim.backends.dtensor import (
    counts_here,
    is_dtensor,
    local,
    local_group,
    placed,
    with_local,
)
from d3fast.optim.backends.group_plan import GroupPlan
from d3fast.optim.buffers import make_buffers
from d3fast.optim.kahan import kahan_load
from d3fast.optim.rules import rule_of

Group = Mapping[str, Any]
State = MutableMapping[Tensor, dict[str, Any]]

COLUMNS = 4  # of the sums, see above
BEFORE, _, WEIGHT, _ = range(COLUMNS)


def count_step(group: Group, state: State) -> None:
    """Raise the versions of a group's DTensors, and count the step where its rule does not."""
    counters, rule = [], rule_of(group)
    for p in group["params"]:
        if p.grad is None:
            continue
        if is_dtensor(p):  # its local part was written past autograd
            torch.autograd.graph.increment_version(p)
        if rule.counts_steps or not rule.buffers(group):
            continue
        if "step" in state[p]:
            counters.append(state[p]["step"])
        else:
            state[p]["step"] = torch.ones((), device="cpu")
    if counters:
        torch._foreach_add_(counters, 1)


class LocalPlan:
    """The step of a param group's local parts.

    Args:
        group: the param group, of which a parameter has a gradient.
        state: the optimizer's state; missing buffers are made here.
    """

    def __init__(self, group: Group, state: State) -> None:
        make_buffers(group, state)
        self.params = [p for p in group["params"] if p.grad is not None]
        self._parts = [local(p) for p in self.params]
        rule = rule_of(group)
        self._names = ("reference", "compensation", *rule.state_names.values())
        if rule.counts_steps:
            self._names += ("step",)
        self._state = {
            part: {
                name: local(tensor)
                for name, tensor in state.get(p, {}).items()
                # SGD's step of 0 is to the kernels the sign of a first step.
                if name != "step" or rule.counts_steps or tensor == 0
            }
            for p, part in zip(self.params, self._parts, strict=True)
        }
        self._group = local_group({**group, "params": self.params})
        self._versions: list[tuple[int, int]] = []
        self._set_gradients()
        self._plan: GroupPlan | None = None

    def matches(self, group: Group, state: State) -> bool:
        """Return whether the plan is valid for the coming step, as ``GroupPlan.matches`` does."""
        params = [p for p in group["params"] if p.grad is not None]
        if self._plan is None or len(params) != len(self.params):
            return False
        if not all(map(is_, params, self.params)):
            return False
        for p, part in zip(params, self._parts, strict=True):
            own = state.get(p, {})
            if local(p) is not part or any(
                local(own.get(name)) is not self._state[part].get(name) for name in self._names
            ):
                return False
        self._group = local_group({**group, "params": self.params})
        self._set_gradients()
        return self._plan.matches(self._group, self._state)

    def step(self, group: Group, state: State, grad_scale: Tensor | None) -> None:
        """Take the step of an untracked group; ``matches`` has just been called."""
        plan = self._plan or self._build(state)
        plan.step(self._group, grad_scale, None)
        self._finish(group, state)

    def _build(self, state: State, shard: native.Shard | None = None) -> GroupPlan:
        self._plan = plan = GroupPlan(self._group, self._state, shard)
        plan.matches(self._group, self._state)
        for p, part in zip(self.params, self._parts, strict=True):
            for name in self._names:
                tensor = self._state[part].get(name)
                if tensor is not None and tensor is not local(state[p].get(name)):
                    state[p][name] = tensor if name == "step" else with_local(tensor, p)
        return plan

    def _finish(self, group: Group, state: State) -> None:
        count_step(group, state)
        for p, part in zip(self.params, self._parts, strict=True):
            if part is not p:
                part.grad = None  # lest it outlive the gradient of the DTensor
        self._versions = self._versions_now()

    def _set_gradients(self) -> None:
        for p, part in zip(self.params, self._parts, strict=True):
            if part is not p and p.grad is not None:
                p.grad = placed(p.grad, p, "grad")
                part.grad = local(p.grad)

    def _versions_now(self) -> list[tuple[int, int]]:
        both = zip(self.params, self._parts, strict=True)
        return [(p._version, part._version) for p, part in both]


class ShardPlan(LocalPlan):
    """The step of a tracked param group through the kernels; see ``TorchShard`` for its twin.

    Args:
        group: the param group, of which a parameter has a gradient.
        state: the optimizer's state; missing buffers are made here.

    Attributes:
        rows: one parameter per norm group, on whose mesh its sums are added up.
    """

    columns = COLUMNS

    def __init__(self, group: Group, state: State) -> None:
        super().__init__(group, state)
        self._joint = group["scope"] == "group"
        self.rows: Sequence[Tensor] = self.params[:1] if self._joint else self.params

    def ready(self, group: Group, state: State) -> bool:
        """Return whether the cached norms are those of the present weights, as far as known."""
        return (
            self.matches(group, state)
            and self._versions == self._versions_now()
            and self._plan is not None
            and not self._plan.needs_verification(self._group)
        )

    def measure(self, sums: Tensor) -> None:
        """Write what ``prepare`` needs from all ranks: sums of ``delta^2`` and ``theta_0^2``."""
        sums.zero_()
        for i, (p, part) in enumerate(zip(self.params, self._parts, strict=True)):
            if counts_here(p):
                row, own = sums[0 if self._joint else i], self._state[part]
                reference = own["reference"]
                row[BEFORE] += squared_distance(part, reference, own.get("compensation"))
                row[WEIGHT] += squared_distance(reference)

    def prepare(self, state: State, totals: Tensor) -> None:
        """Make the plan of the coming step from what all ranks have measured."""
        norms = totals[:, BEFORE].sqrt()
        reference_norms = totals[:, WEIGHT].sqrt().tolist()
        if self._joint:  # the kernels add up the squares of a group's tensors
            reference_norms += [0.0] * (len(self.params) - 1)
        for i, part in enumerate(self._parts):
            self._state[part]["distance"] = norms[0 if self._joint else i]
        shard = native.Shard(
            whole=[p.numel() for p in self.params],
            counts=[counts_here(p) for p in self.params],
            reference_norms=reference_norms,
        )
        self._build(state, shard)

    def update(self, grad_scale: Tensor | None, sums: Tensor) -> None:
        """Take the step without its projection, and write this rank's sums."""
        assert self._plan is not None
        self._plan.update(self._group, grad_scale, sums)

    def correct(self, totals: Tensor, sums: Tensor) -> bool:
        """Correct what was pushed with a stale norm; return whether anything was."""
        assert self._plan is not None
        return self._plan.correct(totals, sums)

    def project(self, group: Group, state: State, totals: Tensor) -> None:
        """Project, which ends the step."""
        assert self._plan is not None
        self._plan.project(totals)
        self._finish(group, state)


def squared_distance(
    theta: Tensor, theta_0: Tensor | None = None, compensation: Tensor | None = None
) -> Tensor:
    """Return ``||theta - theta_0||^2`` in float64, 0-dim, without a copy of whole tensors."""
    size = 1 << 16 if theta.is_cpu else 1 << 24
    given = [t for t in (theta, theta_0, compensation) if t is not None]
    total = torch.zeros((), dtype=torch.float64, device=theta.device)
    for pieces in zip(*(torch.split(t.detach().reshape(-1), size) for t in given), strict=True):
        delta = kahan_load(pieces[0], pieces[2] if len(pieces) > 2 else None).double()
        if theta_0 is not None:
            delta = delta - pieces[1].double()
        total += torch.dot(delta, delta)
    return total
