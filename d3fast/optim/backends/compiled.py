# SPDX-License-Identifier: Apache-2.0
"""The step under ``torch.compile``: what dynamo traces, and the operator that the graph calls.

Kernels that are given addresses cannot be traced, so a param group's step is one operator,
``torch.ops.d3fast.step``, over the lists of its tensors. It names what it writes to, and its
result depends on its arguments alone: a graph may be functionalized, reordered and run on copies.
``trace`` collects the arguments. State that a first step makes is made while tracing, for real.
Numbers that may change between steps travel as 0-dim tensors, because an operator's ``float``
arguments are compiled in: a schedule costs one recompilation, none where it moves a tensor.

Source: torch.library.custom_op.
"""

import itertools
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from d3fast.optim.anchors import same_layout
from d3fast.optim.backends import cuda, group_plan, native, torch_backend
from d3fast.optim.backends.choose import choose_backend
from d3fast.optim.buffers import is_first_step
from d3fast.optim.kahan import HALF_TYPES
from d3fast.optim.options import check_options, is_tracked

State = MutableMapping[Tensor, dict[str, Any]]
_Method = TypeVar("_Method", bound=Callable[..., Any])

_NUMBERS = ("lr", "momentum", "dampening", "weight_decay", "distance_weight")
_STATE = ("reference", "momentum_buffer", "distance", "compensation")
_FIXED = ("nesterov", "maximize", "capturable", "distance_p", "scope", "constraint", "radius_unit")


# ---------------------------------------------------------------- what dynamo traces


def runs_while_tracing(method: _Method) -> _Method:
    """Marks a method that dynamo calls, for real, and whose result is a constant of the graph.

    It is ``torch.compiler.assume_constant_result``, which would import dynamo: 1.5 s.
    """
    method._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return method


def groups_of(optimizer: Any) -> list[dict[str, Any]]:
    """The param groups, past dynamo's own handling of ``Optimizer.param_groups``.

    That one marks parameters as static, and ``loss.backward()`` in the same graph then passes over
    them without a word.
    """
    groups: list[dict[str, Any]] = optimizer.__dict__["param_groups"]
    return groups


def zero_grad(optimizer: Any, set_to_none: bool) -> None:
    """``Optimizer.zero_grad``, which dynamo refuses to trace."""
    for group in groups_of(optimizer):
        for p in group["params"]:
            if set_to_none:  # whatever it is: a look at it would be guarded
                p.grad = optimizer._cache.nothing
            elif p.grad is not None:
                p.grad.zero_()


def trace(optimizer: Any, grad_scale: Tensor | None, found_inf: Tensor | None) -> bool:
    """Put the step of every group that has gradients into the graph.

    Args:
        optimizer: the ``D3FusedSGD``.
        grad_scale: 1-element tensor the gradients are divided by, in place.
        found_inf: 1-element tensor; where it is not 0 nothing moves.

    Returns:
        Whether that could be done. DTensors need the host; and the first step of a momentum
        buffer, which alone is not dampened, would be compiled in.
    """
    groups = groups_of(optimizer)
    taking_part = [
        tuple([i for i, p in enumerate(group["params"]) if p.grad is not None]) for group in groups
    ]
    if not any(taking_part):
        return bool(optimizer._has_no_gradient())
    # All of them before the first look at the optimizer's state, which dynamo takes once.
    backends = [
        _backend(optimizer, index, group, at)
        for index, (group, at) in enumerate(zip(groups, taking_part, strict=True))
    ]
    members = [
        [group["params"][i] for i in at] for group, at in zip(groups, taking_part, strict=True)
    ]
    for backend, group, params in zip(backends, groups, members, strict=True):
        if backend == "sharded" or _starts_undampened(group, params, optimizer.state):
            return False
    for index, (backend, group, params) in enumerate(zip(backends, groups, members, strict=True)):
        if params:
            _call(optimizer, index, group, params, backend, grad_scale, found_inf)
    return True


def _backend(optimizer: Any, index: int, group: Mapping[str, Any], at: Sequence[int]) -> str:
    # A constant of the graph: whatever it follows from is looked at here, and so guarded.
    asked = {
        "momentum": group["momentum"] != 0,
        "dampening": group["dampening"] != 0,
        "tracking": is_tracked(group),
    }
    parts = tuple([name for name, wanted in asked.items() if wanted])
    names = ("backend", "distance_p", "momentum_dtype", "reference_dtype", "reference_device")
    backend: str = optimizer._prepare_graph(index, at, parts, *[group[name] for name in names])
    return backend


def _starts_undampened(group: Mapping[str, Any], params: Sequence[Tensor], state: State) -> bool:
    dampened = group["dampening"] != 0 and group["momentum"] != 0
    return dampened and any(is_first_step(p, state) for p in params)


def _call(
    optimizer: Any,
    index: int,
    group: Mapping[str, Any],
    params: Sequence[Tensor],
    backend: str,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    states = [optimizer.state.get(p, {}) for p in params]
    grads = [p.grad for p in params]
    torch.ops.d3fast.step(
        params,
        grads if grad_scale is None else [],
        [] if grad_scale is None else grads,
        *[[own[name] for own in states if own.get(name) is not None] for name in _STATE],
        _numbers(group),
        grad_scale,
        found_inf,
        *[group[name] for name in _FIXED],
        backend,
        optimizer._cache.key,
        index,
    )


def prepare(index: int, group: Mapping[str, Any], at: Sequence[int], state: State) -> str:
    """Make the state that the step of a group needs; runs for real while dynamo traces.

    Args:
        index: number of the group.
        group: the param group.
        at: positions of the parameters that take part.
        state: the optimizer's state.

    Returns:
        The backend.

    Raises:
        ValueError: an option out of its range.
    """
    if at:
        check_options(group)
    backend = choose_backend(index, group)
    params = [group["params"][i] for i in at]
    if backend == "sharded" or _starts_undampened(group, params, state):
        return backend
    for p in params:
        if backend == "reference":
            torch_backend.prepare_state(p, state, group)
        elif any(native.state_columns(group).values()):
            native.prepare_state(p, state[p], group)
    return backend


def _numbers(group: Mapping[str, Any]) -> list[Tensor]:
    """The numbers that a schedule may move, as 0-dim tensors; the radius, none to two, is last."""
    radius = group["radius"]
    radii = [] if radius is None else radius if isinstance(radius, (tuple, list)) else [radius]
    # The product is what dynamo keeps symbolic; torch.full would be specialized.
    return [
        value
        if isinstance(value, Tensor)
        else torch.ones((), dtype=torch.float64, device="cpu") * value
        for value in (*[group[name] for name in _NUMBERS], *radii)
    ]


# ---------------------------------------------------------------- what the graph calls


class Cache:
    """What the steps of an optimizer in graphs leave for the next: a plan per param group.

    Attributes:
        key: by which the operator finds it; no result depends on what is found.
        nothing: the ``None`` of ``zero_grad``. A literal one is a single object to dynamo, which
            would take it for a gradient of this optimizer in every function it compiles later.
    """

    _keys = itertools.count()

    def __init__(self) -> None:
        self.key = next(self._keys)
        self.plans: dict[int, _Plan] = {}
        self.nothing = None
        _CACHES[self.key] = self


_CACHES: WeakValueDictionary[int, Cache] = WeakValueDictionary()  # a graph holds numbers only
Columns = Mapping[str, Sequence[Tensor]]


class _Plan:
    """A launcher and what it was made for.

    Args:
        columns: ``theta`` and the kernels' other columns of one group.
        joint: one norm over the group.

    Raises:
        RuntimeError: a CUDA graph is being captured.
        ValueError: a tensor that does not lie as its parameter does.
    """

    def __init__(self, columns: Columns, joint: bool) -> None:
        theta = columns["theta"]
        for name, tensors in columns.items():
            if tensors and len(tensors) != len(theta):
                raise ValueError(f"{name}: {len(theta)} tensors or none, got {len(tensors)}")
            if len({t.dtype for t in tensors}) > 1:
                raise ValueError(f"{name}: tensors of one dtype, got several")
            for p, tensor in zip(theta, tensors, strict=False):
                _check_like(name, tensor, p)
        if theta[0].is_cuda:
            cuda.refuse_capture(theta[0].device)
        self._places = _places(columns, joint)
        self._references = [(t, t._version) for t in columns["reference"]]  # kept alive with it
        self.launcher = group_plan.make_launcher(columns, joint)

    def knows(self, references: Sequence[Tensor]) -> bool:
        """Whether the references are the same, and unchanged."""
        return len(references) == len(self._references) and all(
            t is own and t._version == version
            for t, (own, version) in zip(references, self._references, strict=True)
        )

    def serves(self, columns: Columns, joint: bool) -> bool:
        """Whether these are the tensors it was made for."""
        return self.knows(columns["reference"]) and _places(columns, joint) == self._places


def _places(columns: Columns, joint: bool) -> list[Any]:
    tensors = (t for column in columns.values() for t in column)
    return [joint, *((t.data_ptr(), t.dtype, t.shape, t.stride()) for t in tensors)]


def _check_like(name: str, tensor: Tensor, p: Tensor) -> None:
    if name == "distance":
        if tensor.dtype != torch.float64 or tensor.shape != () or tensor.device != p.device:
            raise ValueError(f"distance must be a 0-dim float64 tensor on {p.device}")
        return
    if tensor.shape != p.shape or tensor.device != p.device:
        raise ValueError(
            f"{name} has shape {tuple(tensor.shape)} on {tensor.device}, its parameter "
            f"{tuple(p.shape)} on {p.device}"
        )
    if not same_layout(tensor, p):
        raise ValueError(f"{name} has strides {tensor.stride()}, its parameter {p.stride()}")


def _options(numbers: Sequence[Tensor], fixed: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a group, from the arguments of the operator."""
    # On the host there is nothing to wait for.
    values = [n.item() if n.is_cpu else n for n in numbers]
    radii = tuple(values[len(_NUMBERS) :])
    return {
        **dict(zip(_NUMBERS, values, strict=False)),
        **fixed,
        "radius": radii if len(radii) == 2 else next(iter(radii), None),
        "reference_dtype": None,
        "reference_device": None,
        "momentum_dtype": None,
    }


@torch.no_grad()
def _step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    scaled_grads: Sequence[Tensor],
    references: Sequence[Tensor],
    momenta: Sequence[Tensor],
    distances: Sequence[Tensor],
    compensations: Sequence[Tensor],
    numbers: Sequence[Tensor],
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    *fixed: Any,
) -> None:
    """One step of one group; ``fixed`` are the options ``_FIXED``, backend, cache and group."""
    *options, backend, cache, index = fixed
    named = dict(zip(_FIXED, options, strict=True))
    group = _options(numbers, {**named, "params": params, "backend": backend})
    check_options(group)
    on_host = backend == "reference" or params[0].is_cpu
    if found_inf is not None and on_host and bool(found_inf != 0):
        return
    grads = grads or scaled_grads
    for p, grad in zip(params, grads, strict=True):
        if grad.shape != p.shape or grad.device != p.device:
            raise ValueError(
                f"a gradient has shape {tuple(grad.shape)} on {grad.device}, its parameter "
                f"{tuple(p.shape)} on {p.device}"
            )
    if backend == "reference":
        members = _members(group, grads, references, momenta, compensations)
        torch_backend.step_group(members, group, grad_scale=grad_scale)
        return
    given = {
        "reference": references,
        "momentum": momenta,
        "distance": distances,
        "compensation": compensations,
    }
    wanted = native.state_columns(group)
    columns = {"theta": params, **{c: given[c] if name else [] for c, name in wanted.items()}}
    for column in ("reference", "momentum"):
        if columns[column]:
            group[f"{column}_dtype"] = columns[column][0].dtype
    _launch(columns, grads, group, grad_scale, found_inf, _CACHES.get(cache), index)


def _launch(
    columns: Columns,
    grads: Sequence[Tensor],
    group: Mapping[str, Any],
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    cache: Cache | None,
    index: int,
) -> None:
    joint = group["scope"] == "group"
    plan = cache.plans.get(index) if cache is not None else None
    # What a graph runs on may be a copy, made anew for each step; the norms are carried with it.
    verify = plan is None or not plan.knows(columns["reference"])
    if plan is None or not plan.serves(columns, joint):
        reason = native.why_not(group)
        if reason is not None:
            raise ValueError(f"the kernels cannot take this step: {reason}")
        plan = _Plan(columns, joint)
        if cache is not None:
            cache.plans[index] = plan
    fitted = [native.fit_gradient(g, p) for g, p in zip(grads, columns["theta"], strict=True)]
    addresses = [g.data_ptr() for g in fitted]
    plan.launcher.step(addresses, [], verify, group, None, grad_scale, found_inf)
    if grad_scale is not None:
        for theirs, ours in zip(grads, fitted, strict=True):
            if theirs is not ours and not theirs._is_zerotensor():
                theirs.copy_(ours)


def _members(
    group: Mapping[str, Any],
    grads: Sequence[Tensor],
    references: Sequence[Tensor],
    momenta: Sequence[Tensor],
    compensations: Sequence[Tensor],
) -> list[torch_backend.Member]:
    tracked, remainders = is_tracked(group), iter(compensations)
    return [
        torch_backend.Member(
            p,
            grad,
            momenta[i] if group["momentum"] != 0 else None,
            False,
            references[i] if tracked else None,
            next(remainders) if tracked and p.dtype in HALF_TYPES else None,
        )
        for i, (p, grad) in enumerate(zip(group["params"], grads, strict=True))
    ]


# Inductor must not put it into a CUDA graph of its own: numbers that the host reads would stay what
# they were. An older torch has no such tag.
_UNSAFE: Any = getattr(torch.Tag, "cudagraph_unsafe", None)
_TAGS: dict[str, Any] = {} if _UNSAFE is None else {"tags": [_UNSAFE]}

_OPERATOR = torch.library.custom_op(
    "d3fast::step",
    _step,
    mutates_args=("params", "scaled_grads", "momenta", "distances", "compensations"),
    schema="(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] scaled_grads, Tensor[] references, "
    "Tensor(c!)[] momenta, Tensor(d!)[] distances, Tensor(e!)[] compensations, Tensor[] numbers, "
    "Tensor? grad_scale, Tensor? found_inf, bool nesterov, bool maximize, "
    "bool capturable, float distance_p, str scope, str? constraint, str radius_unit, "
    "str backend, int cache, int group) -> ()",
    **_TAGS,
)
_OPERATOR.register_fake(lambda *args: None)
