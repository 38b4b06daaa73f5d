# SPDX-License-Identifier: Apache-2.0
"""``D3Optimizer``: what the D3 optimizers share beside the rule of their step.

The class keeps the contract of ``torch.optim.Optimizer`` (groups, state, hooks, AMP) and adds
references, warm starts and distances. ``Stepper`` takes the eager steps, ``compiled`` those that
``torch.compile`` traces.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from d3fast.optim.anchors import (
    References,
    assign_initial_references,
    assign_references,
    choose_by_reference,
    keep_references,
)
from d3fast.optim.backends import compiled, shard_torch, torch_backend
from d3fast.optim.backends.choose import choose_backend, level_of_caller
from d3fast.optim.backends.dtensor import check_placements, is_sharded
from d3fast.optim.backends.native import forget_distance
from d3fast.optim.buffers import require_references
from d3fast.optim.checkpoints import (
    complete_state,
    initialize_state,
    restore_state,
    with_own_options,
)
from d3fast.optim.options import check_group, floating_params, is_tracked
from d3fast.optim.stepper import Stepper
from d3fast.optim.tracking import (
    KINDS,
    parts,
    resolve_track,
    split,
    tracked_positions,
)
from d3fast.optim.warm_start import WARM_STARTS
from d3fast.runtime.checks import check_choice


class D3Optimizer(Optimizer):
    """Base of the D3 optimizers.

    Args:
        params: parameters, ``(name, parameter)`` pairs or dicts defining groups.
        defaults: the options of a group that sets none of its own.
        reference: theta_0 of the tracked groups that bring none; the current weights if ``None``.
    """

    _stepper: Stepper
    _graph_step: compiled.GraphStep
    _awaits_reference: bool

    def __init__(
        self, params: Any, defaults: dict[str, Any], reference: References | None = None
    ) -> None:
        self._prepare_runtime()
        self._awaits_reference = reference is not None
        super().__init__(params, defaults)
        if reference is not None:
            assign_initial_references(self.param_groups, self.state, reference)
            self._awaits_reference = False
            for number in range(len(self.param_groups)):
                self._check_backends(number)
        self._check_tracked()
        initialize_state(self.param_groups, self.state)

    def _check_tracked(self) -> None:
        groups = [group for group in self.param_groups if is_tracked(group)]
        if not groups or any(tracked_positions(group) for group in groups):
            return
        track = self.defaults["track"]
        if track is not None:
            raise ValueError(f"track={track!r} selects no parameter")
        if any(map(floating_params, groups)):
            warnings.warn(
                "no parameter is tracked: none has two or more dimensions and a reference that is "
                "not all zero; track='all' tracks every parameter",
                stacklevel=level_of_caller(),
            )

    def _prepare_runtime(self) -> None:
        # All that follows from groups and state, and so is neither saved nor copied. What captured
        # CUDA graphs address outlives a load.
        if "_stepper" in self.__dict__:
            self._drop_plans()
        self._captured: list[Any] = self.__dict__.get("_captured", [])
        self._stepper = Stepper(self._captured)
        self._graph_step = compiled.GraphStep(self, self._captured)
        self._awaits_reference = False
        self._step_supports_amp_scaling = True

    def _drop_plans(self) -> None:
        self._stepper.drop_plans()
        self._graph_step.cache.plans.clear()

    def _warn_of_graphs(self, replaced: str) -> None:
        if self._captured:
            warnings.warn(
                f"CUDA graphs captured before {replaced} go on with the state of before; capture "
                "the step again",
                stacklevel=level_of_caller(),
            )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._prepare_runtime()
        super().__setstate__(state)
        self.defaults.pop("differentiable", None)  # the base class adds it; no step reads it
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a param group, check its options and take its reference copy.

        Args:
            param_group: ``params`` and any of the options, ``reference`` included.

        Raises:
            ValueError: an option or parameter that cannot be used.
        """
        if isinstance(param_group, dict):
            param_group = dict(param_group)  # the caller's dict keeps its reference entry
            given = param_group.pop("reference", None)
            if given is not None and not isinstance(given, Mapping):
                given = list(given)
            chooses = "track" in param_group
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_group(group)
            if len(self.param_groups) > 1 and group["track"] in KINDS and not chooses:
                raise ValueError(
                    f"track={group['track']!r} needs all names in one group; use "
                    f"d3fast.param_groups(model, track={group['track']!r})"
                )
            group["track"] = resolve_track(group)
            takes_references = given is not None or (
                is_tracked(group) and not self._awaits_reference
            )
            if takes_references and group["track"] is None:
                group["track"] = choose_by_reference(group, given)
            if not self._awaits_reference:
                self._check_backends(len(self.param_groups) - 1)
            if takes_references:
                keep_references(group, self.state, given)
        except Exception:
            self.param_groups.pop()
            raise
        initialize_state(self.param_groups, self.state)

    def _check_backends(self, number: int) -> None:
        for part in split(self.param_groups[number]):
            check_placements(part)
            choose_backend(number, part, announce=True)

    def set_reference(self, reference: References | None = None) -> None:
        """Replace theta_0 of every tracked group.

        State of tensors that are no parameters of a group any more is dropped: accelerate replaces
        the parameters that an optimizer was built with by sharded ones.

        Args:
            reference: one tensor per parameter of the tracked groups in order, or a mapping from
                names of tracked parameters; the current weights if ``None``.

        Raises:
            ValueError: a missing tensor, or one of another shape.
        """
        self._drop_plans()
        self._warn_of_graphs("set_reference()")
        present = {id(p) for group in self.param_groups for p in group["params"]}
        for p in [p for p in self.state if id(p) not in present]:
            del self.state[p]
        tracked = [group for group in self.param_groups if is_tracked(group)]
        assign_references(tracked, self.state, reference)
        initialize_state(self.param_groups, self.state)

    @torch.no_grad()
    def warm_start(self, mode: str = "random", generator: torch.Generator | None = None) -> None:
        """Move the tracked weights away from theta_0 before the first step.

        Args:
            mode: ``"near"`` (theta_0), ``"middle"`` (zeros), ``"far"`` (-theta_0), ``"noise"``
                (theta_0 + N(0, std(theta_0))) or ``"random"`` (U(-1/2, 1/2) rescaled to
                ``||theta_0||``).
            generator: source of randomness; torch's default one if ``None``.

        Raises:
            ValueError: an unknown mode.
        """
        check_choice("mode", mode, WARM_STARTS)
        for _, _, members in self._tracked():
            for p in members.values():
                p.copy_(WARM_STARTS[mode](self.state[p]["reference"], generator))

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step.

        Args:
            closure: re-evaluates the model and returns the loss.

        Returns:
            The result of the closure, or ``None``.

        Raises:
            ValueError: an option scheduled out of its range; a sparse gradient, or one of another
                shape; a group that became tracked without a reference. Nothing has moved then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grad_scale: Tensor | None = getattr(self, "grad_scale", None)
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        if not torch.compiler.is_dynamo_compiling():
            self._step_eagerly(grad_scale, found_inf)
        elif not compiled.trace(self, self._graph_step, grad_scale, found_inf):
            eager = torch.compiler.disable(self._step_eagerly)  # type: ignore[no-untyped-call]
            eager(grad_scale, found_inf)
        return loss

    # Otherwise schedulers of torch wrap `step` in a function that dynamo refuses to trace.
    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]

    def _step_eagerly(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        self._opt_called = True  # what that wrapper is there for
        self._stepper.step(self.param_groups, self.state, grad_scale, found_inf)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Reset the gradients as ``torch.optim.Optimizer.zero_grad`` does; can be compiled."""
        if torch.compiler.is_dynamo_compiling():
            compiled.zero_grad(self, self._graph_step, set_to_none)
        else:
            super().zero_grad(set_to_none)

    def _tracked(self) -> Iterable[tuple[int, Mapping[str, Any], dict[str | int, Tensor]]]:
        """Yield index, options and parameters by name, or by position, of every tracked part."""
        everything = (p for group in self.param_groups for p in group["params"])
        positions = {p: i for i, p in enumerate(everything)}
        for index, (number, part) in enumerate(parts(self.param_groups)):
            keys = part.get("param_names") or [positions[p] for p in part["params"]]
            named = zip(keys, part["params"], strict=True)
            members = {key: p for key, p in named if p.is_floating_point()}
            if is_tracked(part) and members:
                require_references(number, part, members.values(), self.state)
                yield index, part, members

    @torch.no_grad()
    def _norms(self, index: int, group: Mapping[str, Any], params: list[Tensor]) -> list[Tensor]:
        order = group["distance_p"]
        if is_sharded(group):
            return shard_torch.distances(params, self.state, order)
        cached = [
            self._stepper.cached_norm(index, p, self.state) if order == 2 else None for p in params
        ]
        return [
            torch_backend.distance(p, self.state[p]["reference"], order, norm)
            for p, norm in zip(params, cached, strict=True)
        ]

    def distances(self) -> dict[str | int, Tensor]:
        """Return the distance of each tracked parameter from its reference.

        Returns:
            ``||theta - theta_0||_p`` as 0-dim tensors on the parameter's device, by parameter
            name, or by position over all groups where names are unknown. Nothing waits for the
            device. Right after a step the norm that the step itself computed is returned; edits
            through ``.data`` since then are not seen before the next step or
            ``refresh_distances()``.
        """
        found: dict[str | int, Tensor] = {}
        for index, group, members in self._tracked():
            norms = self._norms(index, group, list(members.values()))
            found.update(zip(members, norms, strict=True))
        return found

    def total_distance(self) -> Tensor:
        """Return the distance d of the objective: summed over tensors, or one norm per group.

        Returns:
            0-dim tensor on the device of the first tracked parameter, 0 if nothing is tracked.
        """
        total: Tensor | None = None
        for index, group, members in self._tracked():
            each = torch.stack(self._norms(index, group, list(members.values())))
            joint = group["scope"] == "group"
            d = torch.linalg.vector_norm(each, group["distance_p"]) if joint else each.sum()
            total = d if total is None else total + d.to(total)
        return torch.zeros(()) if total is None else total

    def refresh_distances(self) -> None:
        """Recompute the norms that a fused step caches, after edits that it cannot see."""
        self._drop_plans()
        for _, _, members in self._tracked():
            for p in members.values():
                forget_distance(p, self.state[p])

    def state_dict(self) -> dict[str, Any]:
        """Return the state as ``torch.optim.Optimizer`` does, complete from before the first step.

        ``torch.distributed.checkpoint`` loads a saved state into the tensors of this one: where an
        optimizer with tracked groups has taken no step yet, its momentum buffers are zeros here.
        """

        def complete(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
            return complete_state(state_dict, self.param_groups)

        # Before the hooks of users, which may rename the entries.
        handle = self.register_state_dict_post_hook(complete, prepend=True)
        try:
            return super().state_dict()
        finally:
            handle.remove()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict; the reference is the saved theta_0, not the current weights.

        A state without references or options of D3, such as one of ``torch.optim.SGD`` or
        ``torch.optim.AdamW``, leaves the present ones as they are.

        Args:
            state_dict: the result of ``state_dict()``.

        Raises:
            ValueError: groups or shapes that do not fit; the state of another optimizer.
        """
        present = {p: s["reference"] for p, s in self.state.items() if "reference" in s}
        saved: dict[str, Any] = {}

        def complete(_: Optimizer, given: dict[str, Any]) -> dict[str, Any]:
            saved.update(with_own_options(given, self.param_groups, self.defaults))
            return dict(saved)

        handle = self.register_load_state_dict_pre_hook(complete)
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()
        self._warn_of_graphs("load_state_dict()")
        ids = (i for g in saved["param_groups"] for i in g["params"])
        params = ((p, g) for g in self.param_groups for p in g["params"])
        for i, (p, group) in zip(ids, params, strict=True):
            restore_state(p, self.state, saved["state"].get(i, {}), present.get(p), group)
        initialize_state(self.param_groups, self.state)
