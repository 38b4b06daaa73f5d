# SPDX-License-Identifier: Apache-2.0
"""A param group's tensors as the kernels address them, kept from step to step.

A ``GroupPlan`` holds addresses and is valid as long as none of the tensors moves. Every step
checks that for every tensor, which for small tensors is most of the cost of a step:
``_C.Watch`` does it in one call. After anything that may have changed a weight unnoticed the plan
asks the kernels to verify the cached norms first; edits through ``.data``, which cannot be seen
from here, are noticed by the kernels themselves.
"""

from collections.abc import Mapping, Sequence
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends import cpu, cuda, native
from d3fast.optim.kahan import HALF_TYPES
from d3fast.optim.options import check_options

# Every option that a step reads.
read_options = itemgetter(
    *("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"),
    *("distance_weight", "distance_p", "scope", "constraint", "radius", "radius_unit"),
    *("reference_dtype", "reference_device", "momentum_dtype", "capturable", "backend"),
)


def make_launcher(tensors: Mapping[str, Sequence[Tensor]], joint: bool) -> native.Launcher:
    """Return the launcher for the device of a group's tensors.

    Args:
        tensors: ``theta`` and the columns ``native.STATE_COLUMNS``.
        joint: one norm over the group.
    """
    if tensors["theta"][0].is_cuda:
        return cuda.CudaLauncher(tensors, joint)
    return cpu.CpuLauncher(tensors, joint)


class _Settings:
    """The options of a group when last checked, also in the form the kernels take."""

    def __init__(self, group: Mapping[str, Any]) -> None:
        check_options(group)
        self._values = read_options(group)
        # A tensor, or an item of a list, may change in place.
        constant = all(map(_is_constant, self._values))
        self.native = native.native_options(group, 1.0, on_host=True) if constant else None

    def hold(self, group: Mapping[str, Any]) -> bool:
        """Return True where the options are the same objects, none of which can change."""
        return self.native is not None and all(map(is_, read_options(group), self._values))


def _is_constant(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_constant, value))
    return value is None or isinstance(value, (int, float, str, torch.dtype))


class GroupPlan:
    """The step of one param group through the kernels.

    Args:
        group: the param group, its options checked.
        state: the optimizer's state; missing buffers are made here.

    Raises:
        RuntimeError: a CUDA graph is being captured; nothing has been made then.
    """

    def __init__(self, group: Mapping[str, Any], state: native.State) -> None:
        self.params = [p for p in group["params"] if p.grad is not None]
        if self.params[0].is_cuda:
            cuda.refuse_capture(self.params[0].device)
        columns = {column: name for column, name in native.state_columns(group).items() if name}
        # A group that needs no state leaves none, as torch.optim.SGD does.
        self._stateless = None if columns else {p: dict[str, Any]() for p in self.params}
        state = self._stateless or state
        self._first_step = [native.prepare_state(p, state[p], group) for p in self.params]
        self._settings = _Settings(group)
        self._key = _key(group)
        self._positions = {id(p): i for i, p in enumerate(self.params)}
        tensors = {
            column: [state[p][name] for p in self.params] for column, name in columns.items()
        }
        self._watch = native.extension.Watch(
            params=group["params"],
            state=state,
            columns=list(columns.values()),
            exchange=native.TENSOR_EXCHANGE,
        )
        self._watched = (list(group["params"]), tensors)  # the watch itself keeps nothing alive
        every = {
            "theta": self.params,
            **{column: tensors.get(column, []) for column in native.STATE_COLUMNS},
        }
        self._launcher = make_launcher(every, group["scope"] == "group")

    def gradients(self, group: Mapping[str, Any], state: native.State) -> list[Tensor] | None:
        """Return the gradients of the coming step, or ``None`` where the plan is outdated.

        It is valid while the same parameters have gradients, no tensor has moved and the options
        ask for the same kernels; other changed options are checked and taken over.

        Raises:
            ValueError: an option out of its range.
        """
        grads: list[Tensor] | None = self._watch.look(group["params"], self._stateless or state)
        if grads is not None and not self._settings.hold(group):
            settings = _Settings(group)
            if _key(group) != self._key:
                return None
            self._settings = settings
        return grads

    def step(
        self,
        grads: Sequence[Tensor],
        group: Mapping[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take one step in place.

        Args:
            grads: what ``gradients`` just returned.
            group: the param group.
            grad_scale: 1-element tensor the gradients are divided by, in place.
            found_inf: 1-element tensor; where it is not 0 nothing moves.
        """
        addresses, fitted = self._watch.addresses, grads
        if addresses is None or not all(addresses) or any(map(Tensor.is_neg, grads)):
            # Another dtype or layout, or memory that does not hold the values.
            fitted = [native.fit_gradient(g, p) for g, p in zip(grads, self.params, strict=True)]
            addresses = [g.data_ptr() for g in fitted]
        options, verify = self._settings.native, self._watch.edited
        self._launcher.step(
            addresses, self._first_step, verify, group, options, grad_scale, found_inf
        )
        if grad_scale is not None:
            for theirs, ours in zip(grads, fitted, strict=True):
                if theirs is not ours and not theirs._is_zerotensor():
                    theirs.copy_(ours)
        native.increment_versions(self.params)
        self._watch.settle()
        self._first_step = []

    def cached_norm(self, p: Tensor, state: native.State) -> Tensor | None:
        """Return the norm that the last step stored for ``p`` (0-dim float64).

        ``None`` where ``p`` has changed since, and for half types: there the stored norm is that
        of the weights before they were rounded.
        """
        position, versions = self._positions.get(id(p)), self._watch.versions
        if position is None or not versions or p._version != versions[position]:
            return None
        if p.dtype in HALF_TYPES:
            return None
        distance: Tensor | None = state[p].get("distance")
        return None if distance is None else distance.clone()


def _key(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return the options that a plan is made for; it takes over changes of the others."""
    kinds = ("reference_dtype", "reference_device", "momentum_dtype")
    names = ("scope", "backend", "distance_p", *kinds)
    return (*(group[name] for name in names), *native.state_columns(group).values())
