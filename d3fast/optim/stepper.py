# SPDX-License-Identifier: Apache-2.0
"""The eager step of all param groups: check every group, then let each group's backend step it.

A group of which some parameters are tracked is stepped as two parts (``tracking``), each as a group
of its own. A group served by the kernels has a ``GroupPlan``, which is kept while its tensors stay
where they are; where every group has a valid one, the extension takes the whole step in one call.
Other groups are stepped by the PyTorch or the sharded backend.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from torch import Tensor

from d3fast.optim.backends import native, sharded, torch_backend
from d3fast.optim.backends.choose import choose_backend
from d3fast.optim.backends.dtensor import check_not_replaced, is_sharded
from d3fast.optim.backends.group_plan import GroupPlan, step_planned
from d3fast.optim.backends.plans import Plans
from d3fast.optim.backends.shard_agreement import any_rank
from d3fast.optim.buffers import check_step, drop_unused_buffers, is_first_step
from d3fast.optim.layout import is_fake
from d3fast.optim.rules import rule_of
from d3fast.optim.tracking import parts

Group = Mapping[str, Any]
State = MutableMapping[Tensor, dict[str, Any]]


class Stepper:
    """Take the steps of an optimizer and keep the plans of its groups.

    Args:
        captured: list that takes over what captured CUDA graphs address.
    """

    def __init__(self, captured: list[Any]) -> None:
        self._plans: Plans[GroupPlan] = Plans(captured)
        self._sharded = sharded.ShardedStepper(captured)

    def drop_plans(self) -> None:
        """Let the next step build every plan again, and so verify every cached norm."""
        self._plans.clear()
        self._sharded.drop_plans()

    def step(
        self,
        groups: Sequence[Group],
        state: State,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take one step of all groups, in place.

        Args:
            groups: the param groups.
            state: the optimizer's state.
            grad_scale: 1-element tensor the gradients are divided by, in place.
            found_inf: 1-element tensor; where it is not 0 nothing moves.

        Raises:
            ValueError: an option out of its range; a gradient or a reference that cannot be used.
                Nothing has moved then.
        """
        self._step(groups, parts(groups), state, grad_scale, found_inf)

    def step_part(self, number: int, part: Group, state: State) -> None:
        """Take one step of one part without DTensors, the same one in each call.

        Args:
            number: the number of its param group.
            part: the part.
            state: the optimizer's state.

        Raises:
            ValueError: as in ``step``.
        """
        self._step([part], [(number, part)], state, None, None)

    def _step(
        self,
        groups: Sequence[Group],
        numbered: Sequence[tuple[int, Group]],
        state: State,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        scaled = grad_scale is not None or found_inf is not None
        all_planned = len(self._plans) == len(numbered) and not scaled
        if all_planned and step_planned(self._plans, [part for _, part in numbered], state):
            return
        distributed = [(i, n, part) for i, (n, part) in enumerate(numbered) if is_sharded(part)]
        if distributed and found_inf is not None:
            found_inf = any_rank(found_inf, [part for _, _, part in distributed])
        on_device = self._sharded.reads_overflow(distributed)
        takes_part = bool(distributed) and (on_device or not _is_overflow(found_inf))
        try:
            planned = self._check(numbered, state)
        except ValueError:
            if takes_part:
                self._sharded.refuse(groups, distributed)
            raise
        if takes_part:
            overflow = found_inf if on_device else None
            self._sharded.step(groups, distributed, state, grad_scale, overflow)
        for index, is_planned in planned.items():
            number, group = numbered[index]
            if not is_planned:
                self._build_plan_and_step(index, number, group, state, grad_scale, found_inf)
            elif group["params"][0].is_cuda or not _is_overflow(found_inf):
                self._plans[index].step(group, grad_scale, found_inf)

    def _check(self, numbered: Sequence[tuple[int, Group]], state: State) -> dict[int, bool]:
        """Check the parts of groups that have gradients and no DTensors.

        Returns:
            By index of the part whether it has a valid plan.
        """
        planned: dict[int, bool] = {}
        distributed = False
        for index, (number, group) in enumerate(numbered):
            if is_sharded(group):
                distributed = True
                continue
            plan = self._plans.get(index)
            is_planned = plan is not None and plan.matches(group, state)
            if not is_planned:
                params = [p for p in group["params"] if p.grad is not None]
                if not params:
                    continue
                check_step(number, group, params, state)
                self._plans.drop(index)
            planned[index] = is_planned
        if not planned and not distributed:
            check_not_replaced()
        return planned

    def _build_plan_and_step(
        self,
        index: int,
        number: int,
        group: Group,
        state: State,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take the step of a part that has no valid plan."""
        backend = choose_backend(number, group)
        if _host_needs_overflow(group, backend, state) and _is_overflow(found_inf):
            return  # before any state is made
        drop_unused_buffers(group, state)
        if backend == "reference":
            members = torch_backend.members_of(group, state)
            torch_backend.step_group(members, group, grad_scale=grad_scale)
            return
        params = [p for p in group["params"] if p.grad is not None]
        if any(map(is_fake, params)):
            # There is nothing to compute, and the kernels need no memory beside the state.
            native.prepare_states(params, state, group)
            return
        plan = self._plans[index] = GroupPlan(group, state)
        plan.matches(group, state)  # False for a kind of gradient that the C++ guard cannot read
        plan.step(group, grad_scale, found_inf)

    def cached_norm(self, index: int, p: Tensor, state: State) -> Tensor | None:
        """Return the distance that the last step stored for ``p``, ``None`` where it is outdated.

        Args:
            index: number of the part, over all groups.
            p: a parameter of it.
            state: the optimizer's state.
        """
        plan = self._plans.get(index)
        return None if plan is None else plan.cached_norm(p, state)


def _is_overflow(found_inf: Tensor | None) -> bool:
    return found_inf is not None and not is_fake(found_inf) and bool(found_inf != 0)


def _host_needs_overflow(group: Group, backend: str, state: State) -> bool:
    """Return whether the host has to read ``found_inf`` before a group's step without a plan.

    The CUDA kernels read it by themselves. The exception is a dampened buffer: its first step is
    not dampened, so the host has to know whether that step is taken.
    """
    params = [p for p in group["params"] if p.grad is not None]
    if backend != "fused" or params[0].is_cpu:
        return True
    return rule_of(group).starts_undampened(group) and any(is_first_step(p, state) for p in params)
