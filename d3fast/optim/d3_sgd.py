# SPDX-License-Identifier: Apache-2.0
"""``D3FusedSGD``: SGD that pushes tracked weights away from where they started.

The class keeps the contract of ``torch.optim.Optimizer`` (groups, state, hooks, AMP) and hands
the arithmetic of a step to one of two backends that share one specification: ``reference`` in
plain PyTorch, ``fused`` through the C++/CUDA kernels; groups with DTensors go to ``sharded``.
Method: arXiv 2411.09585.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from d3fast.optim.anchors import on_host, resolve_references
from d3fast.optim.backends import compiled, native, sharded, torch_backend
from d3fast.optim.backends.choose import choose_backend
from d3fast.optim.backends.dtensor import check_not_replaced, check_placements, is_sharded
from d3fast.optim.backends.group_plan import GroupPlan
from d3fast.optim.buffers import drop_unused_buffers, is_first_step
from d3fast.optim.checkpoints import (
    complete_state,
    initialize_state,
    restore_state,
    with_own_options,
)
from d3fast.optim.options import check_group, check_options, floating_params, is_tracked
from d3fast.optim.warm_start import WARM_STARTS
from d3fast.runtime.checks import check_choice

References = Sequence[Tensor] | Mapping[str, Tensor]


class D3FusedSGD(Optimizer):
    """Stochastic gradient descent on ``loss - distance_weight * ||theta - theta_0||_p``.

    With ``distance_weight=0, constraint=None`` a group is plain SGD and follows
    ``torch.optim.SGD``. Every keyword option can differ between param groups. The reference
    copy ``theta_0`` is taken when a group is added; a group that is tracked later only (its
    ``distance_weight`` starts at 0 and is scheduled up) needs ``reference=`` then.

    Args:
        params: parameters, ``(name, parameter)`` pairs or dicts defining groups; see
            ``d3fast.param_groups`` for groups that track a model's head.
        lr: learning rate, number or 1-element tensor.
        momentum: momentum factor.
        dampening: dampening of the momentum, from the second step on.
        weight_decay: L2 penalty.
        nesterov: Nesterov momentum; needs momentum > 0 and dampening = 0.
        maximize: ascend the loss; flips the loss gradient alone, not the push.
        distance_weight: w, weight of the distance, >= 0.
        distance_p: p >= 1 of the norm; fused kernels exist for 1 and 2.
        scope: ``"tensor"`` sums the distances of the tensors, ``"group"`` takes one norm over
            the group; also what a projection rescales together.
        constraint: ``"norm_sphere"``, ``"norm_ball"``, ``"distance_ball"``,
            ``"distance_floor"``, ``"distance_shell"`` or ``None``; Euclidean norms.
        radius: radius of the constraint; ``(lower, upper)`` for the shell; by default
            ``||theta_0||`` for the norm sets.
        radius_unit: ``"relative"`` to ``||theta_0||``, or ``"absolute"``.
        reference: theta_0 if it is not the current weights: one tensor per parameter, or a
            mapping from parameter names.
        reference_dtype: dtype the reference is kept in; the parameter's by default. The fused
            kernels also take bfloat16 beside float32.
        momentum_dtype: dtype of the momentum, likewise; float32 is finer beside a half type.
        reference_device: ``"cpu"`` keeps the reference in pinned memory of the host, from where
            each step of the reference backend copies it, a tensor (``scope``: a group) at a time.
        capturable: let the kernels read an ``lr`` or ``radius`` given as a 1-element CUDA
            tensor, so that a step can be captured in a CUDA graph; otherwise the host reads it.
        backend: ``"fused"``, ``"reference"``, or ``"auto"``: fused where a kernel exists,
            otherwise reference with a warning that says why.

    Parameters whose ``grad`` is ``None`` take no part in a step: neither in the norms nor in
    the projection. State per parameter: ``momentum_buffer``, ``reference`` (tracked groups),
    ``compensation`` (tracked weights of a half type: what storing them took off) and
    ``distance`` (float64 scalar, tracked groups on the fused backend).

    Raises:
        ValueError: an option or parameter that cannot be used, named with its value.

    Example:
        >>> import torch, d3fast
        >>> model = torch.nn.Linear(4, 2)
        >>> opt = D3FusedSGD(d3fast.param_groups(model), lr=0.1, momentum=0.9)
        >>> opt.warm_start("random", generator=torch.Generator().manual_seed(0))
        >>> model(torch.ones(3, 4)).sum().backward()
        >>> opt.step()
        >>> list(opt.distances())
        ['weight']
    """

    _plans: dict[int, GroupPlan]
    _cache: compiled.Cache
    _awaits_reference: bool

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        distance_weight: float = 1.0,
        distance_p: float = 2.0,
        scope: str = "tensor",
        constraint: str | None = "norm_sphere",
        radius: float | Tensor | tuple[float | Tensor, float | Tensor] | None = None,
        radius_unit: str = "relative",
        reference: References | None = None,
        reference_dtype: torch.dtype | None = None,
        reference_device: str | None = None,
        momentum_dtype: torch.dtype | None = None,
        capturable: bool = False,
        backend: str = "auto",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "distance_weight": distance_weight,
            "distance_p": distance_p,
            "scope": scope,
            "constraint": constraint,
            "radius": radius,
            "radius_unit": radius_unit,
            "reference_dtype": reference_dtype,
            "reference_device": reference_device,
            "momentum_dtype": momentum_dtype,
            "capturable": capturable,
            "backend": backend,
        }
        self._prepare_runtime()
        self._awaits_reference = reference is not None
        super().__init__(params, defaults)
        self._awaits_reference = False
        if reference is not None:
            # Groups with a reference of their own, and untracked ones beside tracked ones, need
            # none; where nothing is tracked yet, it is meant for what will be.
            bare = [g for g in self.param_groups if not self._has_references(floating_params(g))]
            self._share_out(reference, [g for g in bare if is_tracked(g)] or bare)
        initialize_state(self.param_groups, self.state)

    def _prepare_runtime(self) -> None:
        # What can be rebuilt from groups and state, and so is neither saved nor copied.
        self._plans = {}
        self._cache = compiled.Cache()
        self._awaits_reference = False
        self._step_supports_amp_scaling = True

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
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            check_group(group)
            check_placements(group)
            choose_backend(len(self.param_groups) - 1, group, announce=True)
            if given is not None or (is_tracked(group) and not self._awaits_reference):
                self._keep_references(group, given)
        except Exception:
            self.param_groups.pop()
            raise
        initialize_state(self.param_groups, self.state)

    def _has_references(self, params: Iterable[Tensor]) -> bool:
        return all("reference" in self.state.get(p, ()) for p in params)

    def _need_references(self, index: int, group: dict[str, Any], params: Iterable[Tensor]) -> None:
        if not self._has_references(params):
            raise ValueError(
                f"param group {index} is tracked (distance_weight={group['distance_weight']!r}, "
                f"constraint={group['constraint']!r}) but was added untracked, without reference=; "
                "set_reference() takes one now"
            )

    def _keep_references(self, group: dict[str, Any], given: References | None) -> None:
        tensors = resolve_references(
            given, group["params"], group.get("param_names"), group["reference_dtype"]
        )
        for p, theta_0 in zip(group["params"], tensors, strict=True):
            if theta_0 is None:
                continue
            hosted = group["reference_device"] == "cpu"
            self.state[p]["reference"] = on_host(theta_0) if hosted else theta_0
            native.forget_distance(p, self.state[p])

    def set_reference(self, reference: References | None = None) -> None:
        """Replace theta_0 of every tracked group.

        State of tensors that are no parameters of a group any more is dropped: accelerate puts
        sharded parameters in the place of those that an optimizer was built with.

        Args:
            reference: one tensor per tracked parameter in group order, or a mapping from
                parameter names; the current weights if ``None``.

        Raises:
            ValueError: a missing tensor, or one of another shape.
        """
        self._plans.clear()
        present = {id(p) for group in self.param_groups for p in group["params"]}
        for p in [p for p in self.state if id(p) not in present]:
            del self.state[p]
        self._share_out(reference, [g for g in self.param_groups if is_tracked(g)])
        initialize_state(self.param_groups, self.state)

    def _share_out(self, reference: References | None, groups: list[dict[str, Any]]) -> None:
        parts: list[References | None] = [reference] * len(groups)
        if reference is not None and not isinstance(reference, Mapping):
            sizes = [len(g["params"]) for g in groups]
            if len(reference) != sum(sizes):
                raise ValueError(
                    f"reference must hold {sum(sizes)} tensors, one per tracked parameter, "
                    f"got {len(reference)}"
                )
            ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
            parts = [reference[e - n : e] for e, n in zip(ends, sizes, strict=True)]
        for group, part in zip(groups, parts, strict=True):
            self._keep_references(group, part)

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
            for _, p in members:
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
            What the closure returned, or ``None``.

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
        elif not compiled.trace(self, grad_scale, found_inf):
            eager = torch.compiler.disable(self._step_eagerly)  # type: ignore[no-untyped-call]
            eager(grad_scale, found_inf)
        return loss

    # Otherwise schedulers of torch wrap `step` in a function that dynamo refuses to trace.
    step._wrapped_by_lr_sched = True  # type: ignore[attr-defined]

    def _step_eagerly(self, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
        self._opt_called = True  # what that wrapper is there for
        spread = [g for g in self.param_groups if is_sharded(g)]
        if spread and found_inf is not None:
            found_inf = sharded.any_rank(found_inf, spread)
        try:
            taking_part = self._taking_part()
        except ValueError:
            sharded.refuse(spread)
            raise
        meeting = [group for _, group, _ in taking_part if sharded.must_meet(group)]
        if meeting and (found_inf is None or not bool(found_inf != 0)):
            sharded.step_tracked(meeting, self.state, grad_scale)
        for index, group, grads in taking_part:
            if sharded.must_meet(group):
                continue
            if found_inf is not None and self._must_read(index) and bool(found_inf != 0):
                continue  # before any state is made: on overflow nothing changes
            if grads is None:
                self._step_anew(index, group, grad_scale, found_inf)
            else:
                self._plans[index].step(grads, group, grad_scale, found_inf)

    @compiled.runs_while_tracing
    def _prepare_graph(self, index: int, at: Sequence[int], *_: Any) -> str:
        self._opt_called = True
        group = self.param_groups[index]
        if is_tracked(group):
            self._need_references(index, group, [group["params"][i] for i in at])
        return compiled.prepare(index, group, at, self.state)

    @compiled.runs_while_tracing
    def _has_no_gradient(self) -> bool:
        check_not_replaced()
        return True

    def zero_grad(self, set_to_none: bool = True) -> None:
        """As ``torch.optim.Optimizer.zero_grad``; can be compiled."""
        if torch.compiler.is_dynamo_compiling():
            compiled.zero_grad(self, set_to_none)
        else:
            super().zero_grad(set_to_none)

    def _taking_part(self) -> list[tuple[int, dict[str, Any], list[Tensor] | None]]:
        """The groups that the step moves, all of them checked before anything does."""
        found = []
        for index, group in enumerate(self.param_groups):
            plan = self._plans.get(index)
            grads = plan.gradients(group, self.state) if plan is not None else None
            if grads is None:
                params = [p for p in group["params"] if p.grad is not None]
                if not params and not sharded.must_meet(group):
                    continue
                self._check_step(index, group, params)
                self._plans.pop(index, None)
            found.append((index, group, grads))
        if not found:
            self._has_no_gradient()
        return found

    def _step_anew(
        self,
        index: int,
        group: dict[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take the step of a group that has no plan, or none that is still good."""
        backend = choose_backend(index, group)
        if backend != "sharded":
            drop_unused_buffers(group, self.state)
        if backend == "sharded":
            sharded.step_plain(group, self.state, grad_scale)
            return
        if backend == "reference":
            members = torch_backend.members_of(group, self.state)
            torch_backend.step_group(members, group, grad_scale=grad_scale)
            return
        plan = self._plans[index] = GroupPlan(group, self.state)
        grads = plan.gradients(group, self.state)
        if grads is None:  # a gradient of a kind that only torch knows
            grads = [p.grad for p in plan.params if p.grad is not None]
        plan.step(grads, group, grad_scale, found_inf)

    def _must_read(self, index: int) -> bool:
        """Whether the host has to know ``found_inf`` before this group's step."""
        group = self.param_groups[index]
        params = [p for p in group["params"] if p.grad is not None]
        if choose_backend(index, group) != "fused" or params[0].is_cpu:
            return True
        # The kernels skip by themselves, but whether this is a buffer's first step, which is not
        # dampened, the host has to know. It waits for the device that one time.
        return group["dampening"] != 0 and any(is_first_step(p, self.state) for p in params)

    def _check_step(self, index: int, group: dict[str, Any], params: list[Tensor]) -> None:
        check_options(group)
        for p in params:
            grad = p.grad
            assert grad is not None
            if grad.layout != torch.strided:
                raise ValueError(
                    f"D3FusedSGD needs dense gradients, got one of layout {grad.layout}"
                )
            if grad.shape != p.shape or grad.device != p.device:
                raise ValueError(
                    f"a gradient has shape {tuple(grad.shape)} on {grad.device}, its parameter "
                    f"{tuple(p.shape)} on {p.device}"
                )
        if is_tracked(group):
            self._need_references(index, group, params)

    def _tracked(self) -> Iterable[tuple[int, dict[str, Any], list[tuple[str | int, Tensor]]]]:
        offset = 0
        for index, group in enumerate(self.param_groups):
            count = len(group["params"])
            keys = group.get("param_names") or range(offset, offset + count)
            offset += count
            named = zip(keys, group["params"], strict=True)
            members = [(key, p) for key, p in named if p.is_floating_point()]
            if is_tracked(group) and members:
                self._need_references(index, group, [p for _, p in members])
                yield index, group, members

    @torch.no_grad()
    def _distances(self, index: int, group: dict[str, Any], params: list[Tensor]) -> list[Tensor]:
        if is_sharded(group):
            return sharded.distances(params, self.state, group["distance_p"])
        plan = self._plans.get(index)
        plan = plan if group["distance_p"] == 2 else None
        return [
            torch_backend.distance(
                p,
                self.state[p]["reference"],
                group["distance_p"],
                plan.cached_norm(p, self.state) if plan else None,
            )
            for p in params
        ]

    def distances(self) -> dict[str | int, Tensor]:
        """How far each tracked parameter is from its reference, ``||theta - theta_0||_p``.

        Returns:
            0-dim tensors on the parameter's device by parameter name, or by position over all
            groups where names are unknown. Nothing waits for the device. Right after a step the
            norm that the step itself produced is returned; edits through ``.data`` since then
            are not seen before the next step or ``refresh_distances()``.
        """
        found: dict[str | int, Tensor] = {}
        for index, group, members in self._tracked():
            keys, params = zip(*members, strict=True)
            found.update(zip(keys, self._distances(index, group, list(params)), strict=True))
        return found

    def total_distance(self) -> Tensor:
        """The distance d of the objective: summed over tensors, or one norm per group.

        Returns:
            0-dim tensor on the device of the first tracked parameter, 0 if nothing is tracked.
        """
        total: Tensor | None = None
        for index, group, members in self._tracked():
            each = torch.stack(self._distances(index, group, [p for _, p in members]))
            joint = group["scope"] == "group"
            d = torch.linalg.vector_norm(each, group["distance_p"]) if joint else each.sum()
            total = d if total is None else total + d.to(total)
        return torch.zeros(()) if total is None else total

    def refresh_distances(self) -> None:
        """Recompute the norms that the fused step carries, after edits it cannot see."""
        self._plans.clear()
        self._cache.plans.clear()
        for _, _, members in self._tracked():
            for _, p in members:
                native.forget_distance(p, self.state[p])

    def state_dict(self) -> dict[str, Any]:
        """Return the state as ``torch.optim.Optimizer`` does, complete from before the first step.

        ``torch.distributed.checkpoint`` loads a saved state into the tensors of this one: where an
        optimizer with tracked groups has taken no step yet, its momentum buffers are zeros here.
        """
        return complete_state(super().state_dict(), self.param_groups)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict; the reference is the saved theta_0, not the current weights.

        A state without references or options of D3, such as one of ``torch.optim.SGD``, leaves
        the present ones as they are.

        Args:
            state_dict: what ``state_dict()`` returned.

        Raises:
            ValueError: groups or shapes that do not fit.
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
        ids = (i for g in saved["param_groups"] for i in g["params"])
        params = ((p, g["momentum_dtype"]) for g in self.param_groups for p in g["params"])
        for i, (p, dtype) in zip(ids, params, strict=True):
            restore_state(p, self.state, saved["state"].get(i, {}), present.get(p), dtype)
        initialize_state(self.param_groups, self.state)
