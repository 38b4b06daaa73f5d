# SPDX-License-Identifier: Apache-2.0
"""The step of param groups with DTensors through the kernels, on the parts that this rank holds.

A step of a tracked group has three parts (``csrc/common/options.h``, ``Phase``)::

    update    theta, momentum <- the step without projection, pushed with the cached norm
              sums            <- before, after, weight, inner of every norm group (``struct Sums``)
    correct   only where the sums of all ranks say that the cached norm was stale
    project   theta <- Pi(theta), cached norm <- ||theta - theta_0||, from the sums of all ranks

Between them ``sharded`` adds up the sums of all ranks. The cached norms, those of whole tensors or
of the whole group, are kept here and not in the optimizer's state.

On a GPU no host looks at sums: ``project`` replaces a push that was made with a stale norm, and the
radius of that one step is off by the change of the push. So an edit of the weights, seen or not,
needs no measurement there.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
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


def on_device(tensor: Tensor) -> bool:
    """Return whether the kernels decide about a tensor's projection without the host."""
    return tensor.is_cuda


def start_counting(params: Iterable[Tensor], group: Group, state: State) -> None:
    """Note in the state that the buffers hold a step, where the rule does not count steps."""
    rule = rule_of(group)
    if rule.buffers(group) and not rule.counts_steps:
        for p in params:
            state[p]["step"] = torch.ones((), device="cpu")


class _Member:
    """A parameter, its local part and the tensors of its state."""

    __slots__ = ("param", "part", "tensors")

    def __init__(self, param: Tensor, own: Mapping[str, Any], names: Iterable[str]) -> None:
        self.param, self.part = param, local(param)
        self.tensors = {name: own.get(name) for name in names}

    def holds(self, own: Mapping[str, Any]) -> bool:
        """Return whether the local part and the state are what they were."""
        return local(self.param) is self.part and all(
            own.get(name) is tensor for name, tensor in self.tensors.items()
        )

    def set_gradient(self) -> None:
        """Give the local part its gradient."""
        param, grad = self.param, self.param.grad
        if param is self.part or grad is None:
            return
        if getattr(grad, "placements", None) != param.placements:  # type: ignore[attr-defined]
            param.grad = grad = placed(grad, param, "grad")
        self.part.grad = local(grad)

    def release(self) -> None:
        """Drop the gradient of the local part, lest it outlive that of the parameter."""
        if self.param is not self.part:
            self.part.grad = None


class LocalPlan:
    """The step of a param group's local parts.

    Args:
        group: the param group, of which a parameter has a gradient.
        state: the optimizer's state; missing buffers are made here.
    """

    def __init__(self, group: Group, state: State) -> None:
        make_buffers(group, state)
        self.params = [p for p in group["params"] if p.grad is not None]
        self._dtensors = list(filter(is_dtensor, self.params))
        rule = rule_of(group)
        counter = ["step"] if rule.counts_steps else []
        self._names = ["reference", "compensation", *rule.state_names.values(), *counter]
        self._members = [_Member(p, state.get(p, {}), self._names) for p in self.params]
        self._state = {
            member.part: {
                name: local(tensor)
                for name, tensor in state.get(member.param, {}).items()
                # SGD's step of 0 is to the kernels the sign of a first step.
                if name != "step" or rule.counts_steps or tensor == 0
            }
            for member in self._members
        }
        self._group = local_group({**group, "params": self.params})
        self._first_step: list[Tensor] = []
        self._versions: list[int] = []
        self._plan: GroupPlan | None = None
        for member in self._members:
            member.set_gradient()

    def matches(self, group: Group, state: State) -> bool:
        """Return whether the plan is valid for the coming step, as ``GroupPlan.matches`` does."""
        params = [p for p in group["params"] if p.grad is not None]
        if (
            self._plan is None
            or len(params) != len(self.params)
            or not all(map(is_, params, self.params))
            or not all(m.holds(state.get(m.param, {})) for m in self._members)
        ):
            return False
        for member in self._members:
            member.set_gradient()
        self._group = {**group, "params": self._group["params"]}
        if self._plan.matches(self._group, self._state):
            return True
        self._release()
        return False

    @property
    def captured(self) -> bool:
        """True once a step of the plan was captured in a CUDA graph."""
        return self._plan is not None and self._plan.captured

    def step(
        self,
        group: Group,
        state: State,
        grad_scale: Tensor | None,
        found_inf: Tensor | None = None,
    ) -> None:
        """Take the step of an untracked group; ``matches`` has just been called."""
        plan = self._plan or self._build(state)
        plan.step(self._group, grad_scale, found_inf)
        self._finish(group, state)

    def _build(self, state: State, shard: native.Shard | None = None) -> GroupPlan:
        self._first_step = [m.param for m in self._members if "step" in self._state[m.part]]
        self._plan = plan = GroupPlan(self._group, self._state, shard)
        plan.matches(self._group, self._state)
        for member in self._members:
            p = member.param
            for name in self._names:
                tensor = self._state[member.part].get(name)
                if tensor is not None and tensor is not local(state[p].get(name)):
                    state[p][name] = tensor if name == "step" else with_local(tensor, p)
            member.tensors = {name: state.get(p, {}).get(name) for name in self._names}
        return plan

    def _finish(self, group: Group, state: State) -> None:
        start_counting(self._first_step, group, state)
        self._first_step = []
        native.increment_versions(self._dtensors)  # the local parts were written past autograd
        self._versions = [p._version for p in self._dtensors]
        self._release()

    def _release(self) -> None:
        for member in self._members:
            member.release()


class ShardPlan(LocalPlan):
    """The step of a tracked param group through the kernels; see ``TorchShard`` for its twin.

    Args:
        group: the param group, of which a parameter has a gradient.
        state: the optimizer's state; missing buffers are made here.

    Attributes:
        rows: one parameter per norm group, on whose mesh its sums are added up.
        on_device: the projection looks at the totals, and corrects, without the host.
    """

    columns = COLUMNS

    def __init__(self, group: Group, state: State) -> None:
        super().__init__(group, state)
        self._joint = group["scope"] == "group"
        self.rows: Sequence[Tensor] = self.params[:1] if self._joint else self.params
        self.on_device = on_device(local(self.params[0]))

    def ready(self, group: Group, state: State) -> bool:
        """Return whether the step can begin with the cached norms."""
        if not self.matches(group, state) or self._plan is None:
            return False
        if self._plan.needs_verification(self._group):
            return False
        return self.on_device or not (
            self._plan.edited or self._versions != [p._version for p in self._dtensors]
        )

    def measure(self, sums: Tensor) -> None:
        """Write what ``prepare`` needs from all ranks: sums of ``delta^2`` and ``theta_0^2``."""
        sums.zero_()
        for i, member in enumerate(self._members):
            if counts_here(member.param):
                row, own = sums[0 if self._joint else i], self._state[member.part]
                reference = own["reference"]
                row[BEFORE] += squared_distance(member.part, reference, own.get("compensation"))
                row[WEIGHT] += squared_distance(reference)

    def prepare(self, state: State, totals: Tensor) -> None:
        """Make the plan of the coming step from what all ranks have measured."""
        norms = totals[:, BEFORE].sqrt()
        reference_norms = totals[:, WEIGHT].sqrt()
        if self._joint:  # the kernels add up the squares of a group's tensors
            rest = reference_norms.new_zeros(len(self.params) - 1)
            reference_norms = torch.cat([reference_norms, rest])
        for i, member in enumerate(self._members):
            self._state[member.part]["distance"] = norms[0 if self._joint else i]
        shard = native.Shard(
            whole=[p.numel() for p in self.params],
            counts=[counts_here(p) for p in self.params],
            reference_norms=reference_norms,
        )
        self._build(state, shard)

    def update(
        self, grad_scale: Tensor | None, sums: Tensor, found_inf: Tensor | None = None
    ) -> None:
        """Take the step without its projection, and write this rank's sums."""
        assert self._plan is not None
        self._plan.update(self._group, grad_scale, found_inf, sums)

    def correct(self, totals: Tensor, sums: Tensor) -> bool:
        """Correct what was pushed with a stale norm; return whether ``sums`` have changed."""
        assert self._plan is not None
        return not self.on_device and self._plan.correct(totals, sums)

    def project(
        self, group: Group, state: State, totals: Tensor, held: Tensor | None = None
    ) -> None:
        """Project, which ends the step; ``held``: see ``GroupPlan.project``."""
        assert self._plan is not None
        self._plan.project(totals, held)
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
