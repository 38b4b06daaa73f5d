# SPDX-License-Identifier: Apache-2.0
"""The bridge to the kernels: the only place in Python that handles addresses.

A ``Plan`` holds the addresses of one param group's tensors and is good as long as none of them
moves. Norms travel from step to step in ``state["distance"]``; after anything that may have moved
a weight behind the optimizer's back the plan asks the kernels to verify them first, and the kernels
notice what cannot be seen from here (edits through ``.data``) by themselves.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from d3fast.optim.constraints import resolve_bounds
from d3fast.optim.options import is_tracked
from d3fast.optim.references import is_dense, match_layout, same_layout

_IMPORT_ERROR: str | None = None
try:
    from d3fast import _C
except ImportError as error:  # a source tree that was never built
    _IMPORT_ERROR = str(error)

_CENTERS = {"origin": 1, "reference": 2}
State = Mapping[Tensor, dict[str, Any]]


class Launcher(Protocol):
    """What a device has to offer: one step over the tensors it was built for."""

    def step(
        self,
        grads: Sequence[Tensor],
        fresh: Sequence[bool],
        verify: bool,
        group: Mapping[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take one step with these gradients, laid out like their parameters."""


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
    dtypes = (torch.float32, torch.float64) if device == "cpu" else (torch.float32,)
    if dtype not in dtypes:
        return f"there are no kernels for {dtype} on {device}"
    if any(p.dtype != dtype for p in params):
        return "the group mixes dtypes"
    if not all(is_dense(p) for p in params):
        return "a parameter does not fill its memory densely"
    if is_tracked(group):
        if group["distance_p"] not in (1, 2):
            return f"distance_p={group['distance_p']!r} has no fused kernel, only 1 and 2 have"
        if group["reference_dtype"] not in (None, dtype):
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


def _norm(tensor: Tensor) -> float:
    # Piece by piece: torch would first copy the whole tensor to float64.
    flat = tensor.detach().as_strided((tensor.numel(),), (1,))
    pieces = (
        torch.linalg.vector_norm(x, dtype=torch.float64).item() for x in torch.split(flat, 1 << 16)
    )
    return math.sqrt(math.fsum(x * x for x in pieces))


class CpuLauncher:
    """Steps through ``_C.CpuPlan`` with as many threads as torch uses."""

    def __init__(self, tensors: Mapping[str, Sequence[Tensor]], joint: bool) -> None:
        self._native = _C.CpuPlan(
            dtype=str(tensors["theta"][0].dtype).removeprefix("torch."),
            numel=[t.numel() for t in tensors["theta"]],
            reference_norms=[_norm(t) for t in tensors["reference"]],
            joint=joint,
            **{name: [t.data_ptr() for t in column] for name, column in tensors.items()},
        )

    def step(
        self,
        grads: Sequence[Tensor],
        fresh: Sequence[bool],
        verify: bool,
        group: Mapping[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take the step; ``found_inf`` is on the host, so it is simply read."""
        if found_inf is not None and bool(found_inf != 0):
            return
        self._native.step(
            [g.data_ptr() for g in grads],
            list(fresh),
            verify,
            torch.get_num_threads(),
            native_options(group, 1.0 if grad_scale is None else float(grad_scale), on_host=True),
        )


class Plan:
    """One param group's tensors as the kernels see them.

    Args:
        params: the parameters that have a gradient.
        state: the optimizer's state; buffers that are missing are made here.
        group: the param group.
    """

    def __init__(self, params: Sequence[Tensor], state: State, group: Mapping[str, Any]) -> None:
        self._fresh = [_prepare_state(p, state[p], group) for p in params]
        self._key = _key(params, state, group)
        self._versions: list[int] = []
        self._positions = {id(p): i for i, p in enumerate(params)}
        tensors = {"theta": list(params)}
        for column, name in _columns(group).items():
            tensors[column] = [state[p][name] for p in params] if name else []
        if params[0].is_cuda:
            from d3fast.optim.fused_cuda import CudaLauncher

            self._launcher: Launcher = CudaLauncher(tensors, group["scope"] == "group")
        else:
            self._launcher = CpuLauncher(tensors, group["scope"] == "group")

    def holds(self, params: Sequence[Tensor], state: State, group: Mapping[str, Any]) -> bool:
        """Whether these are still the tensors the plan was made for, at the same addresses."""
        return self._key == _key(params, state, group)

    def step(
        self,
        params: Sequence[Tensor],
        group: Mapping[str, Any],
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
    ) -> None:
        """Take one step in place.

        Args:
            params: the parameters the plan was made for.
            group: their param group.
            grad_scale: 1-element tensor the gradients are divided by, in place.
            found_inf: 1-element tensor; where it is not 0 nothing moves.
        """
        given = [p.grad for p in params if p.grad is not None]
        grads = [
            g if same_layout(g, p) and g.dtype == p.dtype else match_layout(g.to(p.dtype), p)
            for g, p in zip(given, params, strict=True)
        ]
        verify = [p._version for p in params] != self._versions
        self._launcher.step(grads, self._fresh, verify, group, grad_scale, found_inf)
        if grad_scale is not None:
            for theirs, ours in zip(given, grads, strict=True):
                if theirs is not ours:
                    theirs.copy_(ours)
        for p in params:
            # The kernels wrote past autograd: a backward through the old values must still raise.
            torch.autograd.graph.increment_version(p)
        self._versions = [p._version for p in params]
        self._fresh = [False] * len(params)

    def carried(self, p: Tensor, state: State) -> Tensor | None:
        """The norm the last step left for ``p`` (0-dim float64), ``None`` if ``p`` moved since."""
        position = self._positions.get(id(p))
        if position is None or not self._versions or p._version != self._versions[position]:
            return None
        distance: Tensor | None = state[p].get("distance")
        return None if distance is None else distance.clone()


def _columns(group: Mapping[str, Any]) -> dict[str, str | None]:
    tracked = is_tracked(group)
    return {
        "reference": "reference" if tracked else None,
        "momentum": "momentum_buffer" if group["momentum"] != 0 else None,
        "distance": "distance" if tracked and group["distance_p"] == 2 else None,
    }


def _prepare_state(p: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> bool:
    """Make or re-lay what the kernels need beside ``p``; whether the momentum is still unset."""
    columns = _columns(group)
    fresh = bool(columns["momentum"]) and "momentum_buffer" not in state
    if fresh:
        state["momentum_buffer"] = torch.zeros_like(p)
    for name in filter(None, (columns["momentum"], columns["reference"])):
        if state[name].shape != p.shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)}, its parameter {tuple(p.shape)}"
            )
        state[name] = match_layout(state[name].to(p.device, p.dtype), p)
    if columns["distance"]:
        unknown = math.nan if p.numel() else 0.0  # no kernel runs for an empty tensor
        carried = state.get("distance", torch.tensor(unknown, dtype=torch.float64))
        state["distance"] = carried.to(p.device)
    return fresh


def _key(params: Sequence[Tensor], state: State, group: Mapping[str, Any]) -> tuple[Any, ...]:
    names = [name for name in _columns(group).values() if name]
    return (
        group["scope"],
        group["backend"],
        group["distance_p"],
        *names,
        *(_place(p, state[p], names) for p in params),
    )


def _place(p: Tensor, state: Mapping[str, Any], names: Sequence[str]) -> tuple[Any, ...]:
    """Where ``p`` and its state lie, and how; the norm of a reference is kept with its plan."""
    theta_0 = state.get("reference")
    return (
        p.data_ptr(),
        p.dtype,
        p.shape,
        p.stride(),
        theta_0._version if theta_0 is not None else 0,
        *(state[n].data_ptr() if n in state else 0 for n in names),
    )
