# SPDX-License-Identifier: Apache-2.0
"""What the launchers of both devices need to call the extension ``_C``.

Probing (``why_not``), a group's options, dtypes and addresses as the kernels take them, and the
tensors of the optimizer's state that a step reads and writes. Norms travel from step to step in
``state["distance"]``. ``cpu`` and ``cuda`` build on this module, ``group_plan`` chooses among them.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from d3fast.optim.buffers import is_first_step
from d3fast.optim.constraints import resolve_bounds
from d3fast.optim.kahan import HALF_TYPES, compensation_of
from d3fast.optim.layout import is_dense, match_layout
from d3fast.optim.options import floating_params, is_tracked

_IMPORT_ERROR: str | None = None
try:
    from d3fast import _C

    extension = _C
except ImportError as error:  # a source tree that was never built
    _IMPORT_ERROR = str(error)

_CENTERS = {"origin": 1, "reference": 2}
State = Mapping[Tensor, dict[str, Any]]

# Through which an extension reads a tensor's address and strides without torch's headers.
TENSOR_EXCHANGE = getattr(Tensor, "__dlpack_c_exchange_api__", None)


def _increments_many() -> bool:
    try:
        torch.autograd.graph.increment_version([torch.zeros(())])
    except (TypeError, RuntimeError, AttributeError):  # older torch takes one tensor only
        return False
    return True


INCREMENTS_MANY = _increments_many()


def increment_versions(params: Sequence[Tensor]) -> None:
    """Tell autograd that the parameters were written to, so that a stale backward raises."""
    if INCREMENTS_MANY:
        torch.autograd.graph.increment_version(params)
        return
    for p in params:
        torch.autograd.graph.increment_version(p)


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
    params = floating_params(group)
    if not params:
        return None
    device, dtype = params[0].device.type, params[0].dtype
    if device not in ("cpu", "cuda"):
        return f"there are no kernels for device {device!r}"
    if device == "cuda" and not hasattr(extension, "CudaPlan"):
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
    return extension.StepOptions(
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
    return extension.Dtypes(weight=weight, momentum=momentum, reference=reference)


def native_columns(tensors: Mapping[str, Sequence[Tensor]]) -> Any:
    """Where a group's arrays lie: ``theta`` and the columns of its state."""
    return extension.Columns(
        numel=[t.numel() for t in tensors["theta"]],
        **{name: [t.data_ptr() for t in column] for name, column in tensors.items()},
    )


def fit_gradient(grad: Tensor, p: Tensor) -> Tensor:
    """Return the gradient in the dtype and memory layout of its parameter, copied where needed."""
    return match_layout(grad.to(p.dtype), p)


# The columns of a param group's state that the kernels may address.
STATE_COLUMNS = ("compensation", "reference", "momentum", "distance")


def state_columns(group: Mapping[str, Any]) -> dict[str, str | None]:
    """Names in the state of what the kernels need; ``None`` where the group has no such column."""
    tracked = is_tracked(group)
    compensated = tracked and any(p.dtype in HALF_TYPES for p in group["params"])
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
    fresh = bool(columns["momentum"]) and is_first_step(p, {p: state})
    state.pop("step", None)
    if state.get("momentum_buffer") is None and columns["momentum"]:
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
        distance = state.get("distance")
        state["distance"] = (_unknown_distance(p) if distance is None else distance).to(p.device)
    return fresh


def _unknown_distance(p: Tensor) -> Tensor:
    unknown = math.nan if p.numel() else 0.0  # no kernel runs for an empty tensor
    return torch.tensor(unknown, dtype=torch.float64, device=p.device)


def forget_distance(p: Tensor, state: dict[str, Any]) -> None:
    """Where a norm is carried for ``p``, let the next step take it anew."""
    if state.get("distance") is not None:
        # Replaced, not removed: a graph was compiled for the name.
        state["distance"] = _unknown_distance(p)
