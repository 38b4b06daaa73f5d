# SPDX-License-Identifier: Apache-2.0
"""The bridge to the kernels: the only place in Python that handles addresses.

A ``Plan`` holds the addresses of one param group's tensors and is good as long as none of them
moves. Every step asks that of every tensor, which for small tensors is most of what a step costs:
``_C.Watch`` asks it in one call. Norms travel from step to step in ``state["distance"]``; after
anything that may have moved a weight behind the optimizer's back the plan asks the kernels to
verify them first, and the kernels notice what cannot be seen from here (edits through ``.data``)
by themselves.
"""

import math
from collections.abc import Mapping, Sequence
from operator import is_, itemgetter
from typing import Any, Protocol

import torch
from torch import Tensor

from d3fast.optim.anchors import is_dense, match_layout
from d3fast.optim.constraints import resolve_bounds
from d3fast.optim.kahan import HALF_TYPES, compensation_of
from d3fast.optim.options import check_options, is_tracked

_IMPORT_ERROR: str | None = None
try:
    from d3fast import _C
except ImportError as error:  # a source tree that was never built
    _IMPORT_ERROR = str(error)

_CENTERS = {"origin": 1, "reference": 2}
State = Mapping[Tensor, dict[str, Any]]

# How an extension asks torch where a tensor lies, without its headers; an older torch has no way.
TENSOR_EXCHANGE = getattr(Tensor, "__dlpack_c_exchange_api__", None)

# Every option that a step reads.
read_options = itemgetter(
    *("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"),
    *("distance_weight", "distance_p", "scope", "constraint", "radius", "radius_unit"),
    *("reference_dtype", "reference_device", "momentum_dtype", "capturable", "backend"),
)


def _increments_many() -> bool:
    try:
        torch.autograd.graph.increment_version([torch.zeros(())])
    except (TypeError, RuntimeError, AttributeError):  # older torch takes one tensor only
        return False
    return True


_INCREMENTS_MANY = _increments_many()


class Launcher(Protocol):
    """What a device has to offer: one step over the tensors it was built for."""

    def step(
        self,
        grads: Sequence[int],
        fresh: Sequence[bool],
        verify: bool,
        group: Mapping[str, Any],
        options: Any | None,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take one step.

        Args:
            grads: addresses of gradients laid out like their parameters.
            fresh: where the momentum buffer holds no step yet; empty where all hold one.
            verify: carried norms may be wrong.
            group: the param group.
            options: ``native_options(group, 1.0)`` where no option is a tensor, else ``None``.
            grad_scale: 1-element tensor the gradients are divided by, in place.
            found_inf: 1-element tensor; where it is not 0 nothing moves.
        """


def why_not(group: Mapping[str, Any]) -> str | None:
    """Why the kernels cannot serve a param group, or ``None`` if they can."""
    if _IMPORT_ERROR is not None:
        return f"the extension d3fast._C cannot be imported ({_IMPORT_ERROR})"
    params: Sequence[Tensor] = group["params"]
    if not params:
        return None
    device, dtype = params[0].device.type, params[0].dtype
    if device not in ("cpu", "cuda"):
        return f"there are no kernels for device {device!r}"
    if device == "cuda" and not hasattr(_C, "CudaPlan"):
        return "the extension was built without CUDA"
    if dtype not in (torch.float32, *HALF_TYPES, *([torch.float64] if device == "cpu" else [])):
        return f"there are no kernels for {dtype} on {device}"
    if any(p.dtype != dtype for p in params):
        return "the group mixes dtypes"
    if not all(is_dense(p) for p in params):
        return "a parameter does not fill its memory densely"
    # As `CpuStorages` and `CudaStorages` in stored.h have it.
    wider = [torch.float32] if dtype in HALF_TYPES else []
    if group["momentum"] != 0 and group["momentum_dtype"] not in (None, dtype, *wider):
        return f"momentum_dtype={group['momentum_dtype']} differs from the parameters' {dtype}"
    if is_tracked(group):
        if group["reference_device"] == "cpu" and device != "cpu":
            return f"reference_device='cpu' is not where its parameters are, {device}"
        if group["distance_p"] not in (1, 2):
            return f"distance_p={group['distance_p']!r} has no fused kernel, only 1 and 2 have"
        narrower = [torch.bfloat16] if dtype == torch.float32 else []
        if group["reference_dtype"] not in (None, dtype, *narrower):
            return (
                f"reference_dtype={group['reference_dtype']} differs from the parameters' {dtype}"
            )
    return None


def stays_on_device(value: float | Tensor) -> bool:
    """Whether reading an option would make the host wait for the device."""
    return isinstance(value, Tensor) and value.is_cuda


def native_options(group: Mapping[str, Any], grad_scale: float, on_host: bool) -> Any:
    """The kernels' view of a group's options.

    Args:
        group: the param group.
        grad_scale: what gradients are divided by; 1 where the device reads it itself.
        on_host: read tensors; otherwise those on the device are left to the kernels.
    """

    def number(value: float | Tensor) -> float:
        return float(value) if on_host or not stays_on_device(value) else 0.0

    bounds = resolve_bounds(group)
    return _C.StepOptions(
        lr=number(group["lr"]),
        momentum=float(group["momentum"]),
        dampening=float(group["dampening"]),
        weight_decay=float(group["weight_decay"]),
        nesterov=bool(group["nesterov"]),
        maximize=bool(group["maximize"]),
        distance_weight=float(group["distance_weight"]),
        p=int(group["distance_p"]) if is_tracked(group) else 2,
        center=_CENTERS[bounds.center] if bounds else 0,
        lower=number(bounds.lower) if bounds else 0.0,
        upper=number(bounds.upper) if bounds else math.inf,
        relative=bounds.relative if bounds else False,
        grad_scale=grad_scale,
    )


def grad_entries(grads: Sequence[int], fresh: Sequence[bool]) -> list[int]:
    """The CUDA kernels' table of gradients: pairs of an address and whether its buffer is fresh."""
    flags = fresh or [False] * len(grads)
    return [x for g, f in zip(grads, flags, strict=True) for x in (g, int(f))]


def _norm(tensor: Tensor) -> float:
    # Piece by piece: torch would first copy the whole tensor to float64.
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    pieces = (
        torch.linalg.vector_norm(x, dtype=torch.float64).item() for x in torch.split(flat, 1 << 16)
    )
    return math.sqrt(math.fsum(x * x for x in pieces))


def dtype_names(tensors: Mapping[str, Sequence[Tensor]]) -> tuple[str, str, str]:
    """Of weights, momentum and reference; where a group has no such column, that of the weights."""
    weight, momentum, reference = (
        str((tensors[name] or tensors["theta"])[0].dtype).removeprefix("torch.")
        for name in ("theta", "momentum", "reference")
    )
    return weight, momentum, reference


def native_dtypes(tensors: Mapping[str, Sequence[Tensor]]) -> Any:
    """The types of a group's arrays, for the kernels."""
    weight, momentum, reference = dtype_names(tensors)
    return _C.Dtypes(weight=weight, momentum=momentum, reference=reference)


def native_columns(tensors: Mapping[str, Sequence[Tensor]]) -> Any:
    """Where a group's arrays lie: ``theta`` and the columns of its state."""
    return _C.Columns(
        numel=[t.numel() for t in tensors["theta"]],
        **{name: [t.data_ptr() for t in column] for name, column in tensors.items()},
    )


class CpuLauncher:
    """Steps through ``_C.CpuPlan`` with as many threads as torch uses."""

    def __init__(self, tensors: Mapping[str, Sequence[Tensor]], joint: bool) -> None:
        self._native = _C.CpuPlan(
            dtypes=native_dtypes(tensors),
            columns=native_columns(tensors),
            reference_norms=[_norm(t) for t in tensors["reference"]],
            joint=joint,
        )

    def step(
        self,
        grads: Sequence[int],
        fresh: Sequence[bool],
        verify: bool,
        group: Mapping[str, Any],
        options: Any | None,
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take the step; ``found_inf`` is on the host, so it is simply read."""
        if found_inf is not None and bool(found_inf != 0):
            return
        if options is None or grad_scale is not None:
            scale = 1.0 if grad_scale is None else float(grad_scale)
            options = native_options(group, scale, on_host=True)
        self._native.step(grads, fresh, verify, torch.get_num_threads(), options)


def make_launcher(tensors: Mapping[str, Sequence[Tensor]], joint: bool) -> Launcher:
    """The launcher for the device of a group's columns ``theta``, ``reference`` and so on."""
    if tensors["theta"][0].is_cuda:
        from d3fast.optim.backends.cuda import CudaLauncher

        return CudaLauncher(tensors, joint)
    return CpuLauncher(tensors, joint)


class _Settings:
    """The options of a group when last checked, and the kernels' view of them."""

    def __init__(self, group: Mapping[str, Any]) -> None:
        check_options(group)
        self._values = read_options(group)
        # A tensor, or what is in a list, may change in place.
        constant = all(map(_is_constant, self._values))
        self.native = native_options(group, 1.0, on_host=True) if constant else None

    def hold(self, group: Mapping[str, Any]) -> bool:
        """Whether the options are still the very same objects, and such as cannot change."""
        return self.native is not None and all(map(is_, read_options(group), self._values))


def _is_constant(value: Any) -> bool:
    if type(value) is tuple:
        return all(map(_is_constant, value))
    return value is None or isinstance(value, (int, float, str, torch.dtype))


class Plan:
    """One param group's tensors as the kernels see them.

    Args:
        group: the param group, its options checked.
        state: the optimizer's state; buffers that are missing are made here.

    Raises:
        RuntimeError: a CUDA graph is being captured; nothing has been made then.
    """

    def __init__(self, group: Mapping[str, Any], state: State) -> None:
        self.params = [p for p in group["params"] if p.grad is not None]
        if self.params[0].is_cuda:
            from d3fast.optim.backends.cuda import refuse_capture

            refuse_capture(self.params[0].device)
        self._fresh = [prepare_state(p, state[p], group) for p in self.params]
        self._settings = _Settings(group)
        self._key = _key(group)
        self._positions = {id(p): i for i, p in enumerate(self.params)}
        columns = {column: name for column, name in state_columns(group).items() if name}
        tensors = {
            column: [state[p][name] for p in self.params] for column, name in columns.items()
        }
        self._watch = _C.Watch(
            params=group["params"],
            state=state,
            columns=list(columns.values()),
            exchange=TENSOR_EXCHANGE,
        )
        self._watched = (list(group["params"]), tensors)  # the watch itself keeps nothing alive
        joint = group["scope"] == "group"
        every = {
            "theta": self.params,
            **{column: tensors.get(column, []) for column in STATE_COLUMNS},
        }
        self._launcher = make_launcher(every, joint)

    def gradients(self, group: Mapping[str, Any], state: State) -> list[Tensor] | None:
        """What the coming step descends along, or ``None`` where the plan is no longer good.

        It is good while the same parameters have gradients, all tensors are where they were and
        the options ask for the same kernels; other options are checked and taken over.

        Raises:
            ValueError: an option out of its range.
        """
        grads: list[Tensor] | None = self._watch.look(group["params"], state)
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
            fitted = [fit_gradient(g, p) for g, p in zip(grads, self.params, strict=True)]
            addresses = [g.data_ptr() for g in fitted]
        options, verify = self._settings.native, self._watch.edited
        self._launcher.step(addresses, self._fresh, verify, group, options, grad_scale, found_inf)
        if grad_scale is not None:
            for theirs, ours in zip(grads, fitted, strict=True):
                if theirs is not ours and not theirs._is_zerotensor():
                    theirs.copy_(ours)
        _increment_versions(self.params)
        self._watch.settle()
        self._fresh = []

    def carried(self, p: Tensor, state: State) -> Tensor | None:
        """The norm the last step left for ``p`` (0-dim float64), ``None`` if ``p`` moved since.

        ``None`` for half types, too: there it is that of the weights before they were rounded.
        """
        position, versions = self._positions.get(id(p)), self._watch.versions
        if position is None or not versions or p._version != versions[position]:
            return None
        if p.dtype in HALF_TYPES:
            return None
        distance: Tensor | None = state[p].get("distance")
        return None if distance is None else distance.clone()


def _increment_versions(params: Sequence[Tensor]) -> None:
    # The kernels wrote past autograd: a backward through the old values must still raise.
    if _INCREMENTS_MANY:
        torch.autograd.graph.increment_version(params)
        return
    for p in params:
        torch.autograd.graph.increment_version(p)


def fit_gradient(grad: Tensor, p: Tensor) -> Tensor:
    """Return the gradient in the dtype and memory layout of its parameter, copied where needed."""
    return match_layout(grad.to(p.dtype), p)


# The columns of a param group's state that the kernels may address.
STATE_COLUMNS = ("compensation", "reference", "momentum", "distance")


def state_columns(group: Mapping[str, Any]) -> dict[str, str | None]:
    """Names in the state of what the kernels need; ``None`` where the group has no such column."""
    tracked, params = is_tracked(group), group["params"]
    compensated = tracked and bool(params) and params[0].dtype in HALF_TYPES
    return {
        "compensation": "compensation" if compensated else None,
        "reference": "reference" if tracked else None,
        "momentum": "momentum_buffer" if group["momentum"] != 0 else None,
        "distance": "distance" if tracked and group["distance_p"] == 2 else None,
    }


def prepare_state(p: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> bool:
    """Make or re-lay what the kernels need beside ``p``; whether the momentum is still unset."""
    columns = state_columns(group)
    dtypes = {
        "momentum_buffer": group["momentum_dtype"] or p.dtype,
        "reference": group["reference_dtype"] or p.dtype,
        "compensation": p.dtype,
    }
    fresh = bool(columns["momentum"]) and "momentum_buffer" not in state
    if fresh:
        state["momentum_buffer"] = torch.zeros_like(p, dtype=dtypes["momentum_buffer"])
    if columns["compensation"]:
        compensation_of(p, state)
    for name in filter(None, (columns["momentum"], columns["reference"], columns["compensation"])):
        if state[name].shape != p.shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)}, its parameter {tuple(p.shape)}"
            )
        state[name] = match_layout(state[name].to(p.device, dtypes[name]), p)
    if columns["distance"]:
        state["distance"] = state.get("distance", _unknown_distance(p)).to(p.device)
    return fresh


def _unknown_distance(p: Tensor) -> Tensor:
    unknown = math.nan if p.numel() else 0.0  # no kernel runs for an empty tensor
    return torch.tensor(unknown, dtype=torch.float64, device=p.device)


def forget_distance(p: Tensor, state: dict[str, Any]) -> None:
    """Where a norm is carried for ``p``, let the next step take it anew."""
    if "distance" in state:  # replaced, not removed: a graph was compiled for what is there
        state["distance"] = _unknown_distance(p)


def _key(group: Mapping[str, Any]) -> tuple[Any, ...]:
    """The options that a plan is made for; the others it takes over."""
    kinds = ("reference_dtype", "reference_device", "momentum_dtype")
    names = ("scope", "backend", "distance_p", *kinds)
    return (*(group[name] for name in names), *state_columns(group).values())
