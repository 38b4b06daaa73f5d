# SPDX-License-Identifier: Apache-2.0
"""The step under ``torch.compile``: what dynamo traces.

A param group's step is one call of the operator ``torch.ops.d3fast.step`` (``operator.py``) in the
graph; ``trace`` collects its arguments. The state that a first step needs is made while tracing,
for real. Numbers that may change between steps travel as 0-dim tensors, because an operator's
``float`` arguments are compiled in: a schedule costs one recompilation, none where it fills a
tensor.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar
from weakref import ref

import torch
from torch import Tensor
from torch.optim import Optimizer

from d3fast.optim.backends import native, operator, torch_backend
from d3fast.optim.backends.choose import choose_backend
from d3fast.optim.backends.dtensor import check_not_replaced, is_sharded
from d3fast.optim.buffers import is_first_step, require_references
from d3fast.optim.options import check_options, is_tracked
from d3fast.optim.rules import rule_of
from d3fast.optim.tracking import parts

State = MutableMapping[Tensor, dict[str, Any]]
_Method = TypeVar("_Method", bound=Callable[..., Any])


def runs_while_tracing(method: _Method) -> _Method:
    """Mark a method that dynamo calls for real, and whose result is a constant of the graph.

    This is ``torch.compiler.assume_constant_result`` without its import of dynamo, which takes
    1.5 s.
    """
    method._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return method


class GraphStep:
    """The part of an optimizer's compiled steps that runs outside the graph.

    Args:
        optimizer: the optimizer; no reference to it is kept.
        captured: list that takes over what captured CUDA graphs address.

    Attributes:
        cache: the plans of the operator.
        no_gradient: the ``None`` of ``zero_grad``. A literal one is a single object to dynamo,
            which would take it for a gradient of this optimizer in every function it compiles
            later.
    """

    def __init__(self, optimizer: Optimizer, captured: list[Any]) -> None:
        self._optimizer = ref(optimizer)
        self.cache = operator.PlanCache(captured)
        self.no_gradient = None

    @runs_while_tracing
    def prepare(self, index: int, positions: Sequence[int], *_: Any) -> str:
        """Check the step of a part of a group and make the state that it needs.

        Args:
            index: number of the part, over all groups.
            positions: positions of the parameters that have a gradient.
            _: options that the result follows from, so that the graph guards them.

        Returns:
            The backend.

        Raises:
            ValueError: an option out of its range; a reference that is missing.
        """
        optimizer: Any = self._optimizer()
        optimizer._opt_called = True  # as schedulers of torch want it
        (number, group), state = parts(optimizer.param_groups)[index], optimizer.state
        params = [group["params"][i] for i in positions]
        if is_tracked(group):
            require_references(number, group, params, state)
        if params:
            check_options(group)
        if is_sharded(group):
            return "sharded"
        backend = choose_backend(number, group)
        if not _starts_undampened(group, params, state):
            _prepare_state(group, params, state, backend)
        return backend

    @runs_while_tracing
    def check_gradients_exist(self) -> bool:
        """Raise ``ValueError`` in a distributed run, whose parameters must have been replaced."""
        check_not_replaced()
        return True


def _prepare_state(
    group: Mapping[str, Any], params: Sequence[Tensor], state: State, backend: str
) -> None:
    if backend == "fused":
        native.prepare_states(params, state, group)
        return
    for p in params:
        torch_backend.prepare_state(p, state, group)


def _groups_of(optimizer: Any) -> list[dict[str, Any]]:
    """Return the param groups without dynamo's own handling of ``Optimizer.param_groups``.

    That one marks parameters as static, and ``loss.backward()`` in the same graph then passes over
    them without a word.
    """
    groups: list[dict[str, Any]] = optimizer.__dict__["param_groups"]
    return groups


def zero_grad(optimizer: Any, graph_step: GraphStep, set_to_none: bool) -> None:
    """Reset the gradients: dynamo refuses to trace ``Optimizer.zero_grad``."""
    for group in _groups_of(optimizer):
        for p in group["params"]:
            if set_to_none:  # without a look at the gradient, which dynamo would guard
                p.grad = graph_step.no_gradient
            elif p.grad is not None:
                p.grad.zero_()


def trace(
    optimizer: Any, graph_step: GraphStep, grad_scale: Tensor | None, found_inf: Tensor | None
) -> bool:
    """Put the step of every group that has gradients into the graph.

    Args:
        optimizer: the optimizer.
        graph_step: its part outside the graph.
        grad_scale: 1-element tensor the gradients are divided by, in place.
        found_inf: 1-element tensor; where it is not 0 nothing moves.

    Returns:
        Whether that could be done. DTensors need the host; and the first step of a momentum
        buffer, which alone is not dampened, would be compiled in.
    """
    groups = [part for _, part in parts(_groups_of(optimizer))]
    positions = [
        tuple([i for i, p in enumerate(group["params"]) if p.grad is not None]) for group in groups
    ]
    if not any(positions):
        return bool(graph_step.check_gradients_exist())
    # For all groups before the first read of the optimizer's state, which dynamo takes once.
    backends = [
        _prepare(graph_step, index, group, at)
        for index, (group, at) in enumerate(zip(groups, positions, strict=True))
    ]
    members = [
        [group["params"][i] for i in at] for group, at in zip(groups, positions, strict=True)
    ]
    for backend, group, params in zip(backends, groups, members, strict=True):
        if backend == "sharded" or _starts_undampened(group, params, optimizer.state):
            return False
    for index, (backend, group, params) in enumerate(zip(backends, groups, members, strict=True)):
        if params:
            key = (backend, graph_step.cache.key, index)
            _call(optimizer.state, group, params, key, grad_scale, found_inf)
    return True


def _prepare(graph_step: GraphStep, index: int, group: Mapping[str, Any], at: Sequence[int]) -> str:
    # The result is a constant of the graph: all it follows from is read here, and so guarded.
    rule = rule_of(group)
    is_needed = {
        "buffers": bool(rule.buffers(group)),
        "dampening": rule.starts_undampened(group),
        "tracking": is_tracked(group),
    }
    parts = tuple([name for name, needed in is_needed.items() if needed])
    names = ("backend", "distance_p", "momentum_dtype", "reference_dtype", "reference_device")
    backend: str = graph_step.prepare(index, at, parts, *[group[name] for name in names])
    return backend


def _starts_undampened(group: Mapping[str, Any], params: Sequence[Tensor], state: State) -> bool:
    return rule_of(group).starts_undampened(group) and any(is_first_step(p, state) for p in params)


def _call(
    state: State,
    group: Mapping[str, Any],
    params: Sequence[Tensor],
    key: tuple[str, int, int],
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    states = [state.get(p, {}) for p in params]
    grads = [p.grad for p in params]
    rule = rule_of(group)
    buffers = (rule.state_names.get(column, "") for column in ("momentum", "variance"))
    counts = "step" if rule.counts_steps else ""
    names = ("reference", *buffers, counts, "distance", "compensation")
    torch.ops.d3fast.step(
        params,
        grads if grad_scale is None else [],
        [] if grad_scale is None else grads,
        *[[own[name] for own in states if own.get(name) is not None] for name in names],
        _as_tensors([*[group[name] for name in operator.NUMBERS], *rule.numbers(group)]),
        _as_tensors(_radii(group)),
        grad_scale,
        found_inf,
        rule.name,
        rule.variant(group),
        *[group[name] for name in operator.FIXED],
        *key,
    )


def _radii(group: Mapping[str, Any]) -> Sequence[Any]:
    radius = group["radius"]
    return [] if radius is None else radius if isinstance(radius, (tuple, list)) else [radius]


def _as_tensors(numbers: Sequence[Any]) -> list[Tensor]:
    """Return numbers that a schedule may change as 0-dim tensors."""
    # The product is what dynamo keeps symbolic; torch.full would be specialized.
    return [
        value
        if isinstance(value, Tensor)
        else torch.ones((), dtype=torch.float64, device="cpu") * value
        for value in numbers
    ]
