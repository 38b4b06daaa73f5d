# SPDX-License-Identifier: Apache-2.0
"""A param group's tensors as the kernels address them, kept from step to step.

A ``GroupPlan`` holds addresses and is valid as long as none of the tensors moves. Every step
checks that for every tensor, which for small tensors is most of the cost of a step:
``_C.TensorGuard`` does it. Where all groups have a valid plan, ``step_planned`` checks and steps
them in one call of the extension. After anything that may have changed a weight unnoticed the plan
asks the kernels to verify the cached norms first; edits through ``.data``, which cannot be seen
from here, are noticed by the kernels themselves.
"""

from collections.abc import Mapping, Sequence
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends import cpu, cuda, native
from d3fast.optim.backends.plans import Plans
from d3fast.optim.kahan import HALF_TYPES
from d3fast.optim.options import check_options
from d3fast.optim.rules import RULES, rule_of

_SHARED_OPTIONS = (
    *("lr", "weight_decay", "maximize"),
    *("distance_weight", "distance_p", "scope", "constraint", "radius", "radius_unit"),
    *("reference_dtype", "reference_device", "momentum_dtype", "capturable", "backend"),
)
_READERS = {rule.name: itemgetter(*_SHARED_OPTIONS, *rule.options) for rule in RULES}


def read_options(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the values of every option that a step reads."""
    return _READERS[rule_of(group).name](group)


def make_launcher(
    tensors: Mapping[str, Sequence[Tensor]], joint_norm: bool, shard: native.Shard | None = None
) -> native.Launcher:
    """Return the launcher for the device of a group's tensors.

    Args:
        tensors: ``theta`` and the columns ``native.STATE_COLUMNS``.
        joint_norm: one norm over the group.
        shard: given where the tensors are parts of larger ones.
    """
    if tensors["theta"][0].is_cuda:
        return cuda.CudaLauncher(tensors, joint_norm, shard)
    return cpu.CpuLauncher(tensors, joint_norm, shard)


class _Settings:
    """The options of a group when last checked, also in the form the kernels take."""

    def __init__(self, group: Mapping[str, Any]) -> None:
        check_options(group)
        self._values = read_options(group)
        # A tensor, or an item of a list, may change in place.
        constant = all(map(_is_constant, self._values))
        self.options = native.step_options(group) if constant else None

    def hold(self, group: Mapping[str, Any]) -> bool:
        """Return True where the options are the same objects, none of which can change."""
        return self.options is not None and all(map(is_, read_options(group), self._values))


def _is_constant(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_constant, value))
    return value is None or isinstance(value, (int, float, str, torch.dtype))


class GroupPlan:
    """The step of one param group through the kernels.

    Args:
        group: the param group, its options checked.
        state: the optimizer's state; missing buffers are made here.
        shard: given where the parameters are parts of larger tensors. The plan then takes its step
            by ``update``, ``correct`` (CPU only) and ``project``, between which the ranks add up
            their sums, (norm groups, 4) float64 as ``struct Sums``, on the parameters' device.

    Raises:
        RuntimeError: a CUDA graph is being captured; nothing has been made then.
    """

    def __init__(
        self, group: Mapping[str, Any], state: native.State, shard: native.Shard | None = None
    ) -> None:
        self.params = [p for p in group["params"] if p.grad is not None]
        if self.params[0].is_cuda:
            cuda.refuse_capture(self.params[0].device)
        columns = {column: name for column, name in native.state_columns(group).items() if name}
        self._first_step = native.prepare_states(self.params, state, group)
        self._settings = _Settings(group)
        self._key = plan_key(group)
        self._positions = {id(p): i for i, p in enumerate(self.params)}
        tensors = {
            column: [state[p][name] for p in self.params] for column, name in columns.items()
        }
        self._guard = native.extension.TensorGuard(
            params=group["params"],
            state=state,
            columns=list(columns.values()),
            exchange=native.TENSOR_EXCHANGE,
        )
        self._guarded = (list(group["params"]), tensors)  # the guard itself keeps nothing alive
        every = {
            "theta": self.params,
            **{column: tensors.get(column, []) for column in native.STATE_COLUMNS},
        }
        self._launcher = make_launcher(every, group["scope"] == "group", shard)
        self._request: tuple[Any, ...] = ()
        self._fitted: list[tuple[Tensor, Tensor]] = []

    @property
    def captured(self) -> bool:
        """True once a step of the plan was captured in a CUDA graph."""
        return self._launcher.captured

    def matches(self, group: Mapping[str, Any], state: native.State) -> bool:
        """Return True where the plan is valid for the coming step.

        It is while the same parameters have gradients, no tensor has moved and the options ask
        for the same kernels; other changed options are checked and taken over.

        Raises:
            ValueError: an option out of its range.
        """
        return self._guard.matches(group["params"], state) and self._take_over_options(group)

    def _take_over_options(self, group: Mapping[str, Any]) -> bool:
        if self._settings.hold(group):
            return True
        settings = _Settings(group)
        if plan_key(group) != self._key:
            return False
        self._settings = settings
        return True

    def step(
        self,
        group: Mapping[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take one step in place; ``matches`` has just been called.

        Args:
            group: the param group.
            grad_scale: 1-element tensor the gradients are divided by, in place.
            found_inf: 1-element tensor; where it is not 0 nothing moves.
        """
        self._start(group, grad_scale, found_inf)
        self._launcher.step(*self._request)
        self._finish()

    def update(
        self,
        group: Mapping[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        sums: Tensor,
    ) -> None:
        """Take the step of a shard without its projection; ``matches`` has just been called.

        Args:
            group: the param group.
            grad_scale: 1-element tensor the gradients are divided by, in place.
            found_inf: 1-element tensor; where it is not 0 nothing moves.
            sums: receives the sums of this rank.
        """
        self._start(group, grad_scale, found_inf)
        phase = native.extension.Phase.update
        self._launcher.step(*self._request, phase=phase, sums=sums.data_ptr())

    def correct(self, totals: Tensor, sums: Tensor) -> bool:
        """Correct norm groups whose cached norm was stale.

        Args:
            totals: the sums of all ranks.
            sums: receives the sums of this rank where a group was corrected.

        Returns:
            Whether one was; the same on every rank.
        """
        phase, own, all_ranks = native.extension.Phase.correct, sums.data_ptr(), totals.data_ptr()
        return self._launcher.step(*self._request, phase=phase, sums=own, totals=all_ranks)

    def project(self, totals: Tensor, held: Tensor | None = None) -> None:
        """Project with the sums of all ranks, which ends the step of a shard.

        Args:
            totals: the sums of all ranks.
            held: two numbers, on the device; the projection is taken where both are 0. ``None`` on
                the CPU.
        """
        part: dict[str, Any] = {} if held is None else {"held": held.data_ptr()}
        phase = native.extension.Phase.project
        self._launcher.step(*self._request, phase=phase, totals=totals.data_ptr(), **part)
        self._finish()

    @property
    def edited(self) -> bool:
        """True where a parameter was edited since the last step, as ``matches`` found."""
        return self._guard.edited

    def needs_verification(self, group: Mapping[str, Any]) -> bool:
        """Return whether the coming step can only start from norms that were verified."""
        options = self._settings.options or self._launcher.options(group)
        return options.needs_verification and options.distance_weight != 0 and options.p == 2

    def _start(
        self, group: Mapping[str, Any], grad_scale: Tensor | None, found_inf: Tensor | None
    ) -> None:
        self._fitted = []
        if self._guard.readable:
            addresses = self._guard.gradients
        else:
            grads = [(p.grad, p) for p in self.params if p.grad is not None]
            self._fitted = [(grad, native.fit_gradient(grad, p)) for grad, p in grads]
            addresses = [ours.data_ptr() for _, ours in self._fitted]
        options = self._settings.options or self._launcher.options(group)
        edited = self._guard.edited
        self._request = (addresses, self._first_step, edited, options, grad_scale, found_inf)

    def _finish(self) -> None:
        *_, grad_scale, _ = self._request
        if grad_scale is not None:
            for theirs, ours in self._fitted:
                if theirs is not ours and not theirs._is_zerotensor():
                    theirs.copy_(ours)
        native.increment_versions(self.params)
        self._guard.record_versions()
        self._first_step, self._request, self._fitted = [], (), []

    def direct_step(self, group: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """Return the group's entry of ``_C.step_groups``, ``None`` where it needs ``step``.

        Raises:
            ValueError: an option out of its range.
        """
        if self._first_step or not self._take_over_options(group):
            return None
        options = self._settings.options or self._launcher.options(group)
        executor = self._launcher.executor()
        if executor is None:
            return None
        return self._guard, self._launcher.plan, group["params"], options, executor

    def cached_norm(self, p: Tensor, state: native.State) -> Tensor | None:
        """Return the norm that the last step stored for ``p`` (0-dim float64).

        ``None`` where ``p`` has changed since, and for half types: there the stored norm is that
        of the weights before they were rounded.
        """
        position, versions = self._positions.get(id(p)), self._guard.versions
        if position is None or not versions or p._version != versions[position]:
            return None
        if p.dtype in HALF_TYPES:
            return None
        distance: Tensor | None = state[p].get("distance")
        return None if distance is None else distance.clone()


def plan_key(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the options that a plan is made for; it takes over changes of the others."""
    kinds = ("reference_dtype", "reference_device", "momentum_dtype")
    names = ("scope", "backend", "distance_p", *kinds)
    return (*(group[name] for name in names), *native.state_columns(group).values())


def step_planned(
    plans: Plans[GroupPlan], groups: Sequence[Mapping[str, Any]], state: native.State
) -> bool:
    """Take the step of all param groups in one call, where every group has a valid plan.

    Args:
        plans: plans by number of the group.
        groups: the param groups.
        state: the optimizer's state.

    Returns:
        False where a group has no plan, or one that is outdated or needs Python; nothing has
        moved then.

    Raises:
        ValueError: an option out of its range.
    """
    steps = []
    for index, group in enumerate(groups):
        plan = plans.get(index)
        step = None if plan is None else plan.direct_step(group)
        if step is None:
            return False
        steps.append(step)
    return native.extension.step_groups(
        groups=steps, state=state, increment_versions=native.increment_versions
    )
