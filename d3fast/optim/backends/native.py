# SPDX-License-Identifier: Apache-2.0
"""What the launchers of both devices need to call the extension ``_C``.

Probing (``why_not``), a group's options, dtypes and addresses as the kernels take them, and the
tensors of the optimizer's state that a step reads and writes. Norms travel from step to step in
``state["distance"]``. ``cpu`` and ``cuda`` build on this module, ``group_plan`` chooses among them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from d3fast.optim.buffers import take_buffers
from d3fast.optim.constraints import resolve_bounds
from d3fast.optim.kahan import HALF_TYPES, compensation_of
from d3fast.optim.layout import is_dense, match_layout
from d3fast.optim.options import floating_params, is_tracked
from d3fast.optim.rules import rule_of
from d3fast.optim.rules.base import buffer_dtype

_IMPORT_ERROR: str | None = None
try:
    from d3fast import _C

    extension = _C
except ImportError as error:  # a source tree that was never built
    _IMPORT_ERROR = str(error)

State = Mapping[Tensor, dict[str, Any]]

# How an extension reads a tensor's address and strides without torch's headers; None in an older
# torch, whose tensors are read through their methods.
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


@dataclass(frozen=True)
class Shard:
    """How the parts that a rank holds of a group's tensors enter the norms of the whole tensors.

    Attributes:
        whole: elements of each whole tensor.
        counts: whether this rank's part enters the sums: of replicas one does.
        reference_norms: (tensors) float64, ``||theta_0||`` of each whole tensor; with one norm over
            the group that of the group, then zeros.
    """

    whole: Sequence[int]
    counts: Sequence[bool]
    reference_norms: Tensor


class Launcher(Protocol):
    """The steps of one param group on one kind of device.

    Attributes:
        plan: the extension's plan for the tensors it was built for.
        captured: True once a step was captured in a CUDA graph.
    """

    plan: "_C.Plan"
    captured: bool

    def options(self, group: Mapping[str, Any]) -> "_C.StepOptions":
        """Return the options of a group for the coming step; some of them are tensors."""

    def executor(self) -> int | None:
        """Return what takes the step: the number of threads, or the address of a stream.

        Called after ``options``. ``None`` where the step must be taken through ``step``.
        """

    def step(
        self,
        grads: Sequence[int],
        first_step: Sequence[bool],
        verify: bool,
        options: "_C.StepOptions",
        grad_scale: Tensor | None,
        found_inf: Tensor | None,
        **part: Any,
    ) -> bool:
        """Take one step, or a part of the step of a shard.

        Args:
            grads: addresses of gradients in the layout of their parameters.
            first_step: momentum buffers that hold no step yet; empty where all hold one.
            verify: cached norms may be wrong.
            options: ``step_options(group)``, or what ``options`` returns.
            grad_scale: 1-element tensor the gradients are divided by, in place.
            found_inf: 1-element tensor; where it is not 0 nothing moves.
            part: ``phase`` and the addresses ``sums``, ``totals`` and ``held`` (``_C.Plan.step``).

        Returns:
            Whether ``Phase.correct`` changed something.
        """


def why_not(group: Mapping[str, Any]) -> str | None:
    """Return the reason why the kernels cannot serve a param group, or ``None``."""
    if _IMPORT_ERROR is not None:
        return (
            f"the extension d3fast._C cannot be imported ({_IMPORT_ERROR}); where it was left out, "
            "install a C++ compiler and d3fast again"
        )
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
    # As in `CpuDTypes` and `CudaDTypes`, csrc/common/dtypes.h.
    narrower = [torch.bfloat16] if dtype == torch.float32 else []
    others = [torch.float32] if dtype in HALF_TYPES else narrower
    buffered = bool(rule_of(group).buffers(group))
    if buffered and group["momentum_dtype"] not in (None, dtype, *others):
        return f"momentum_dtype={group['momentum_dtype']} differs from the parameters' {dtype}"
    if is_tracked(group):
        if group["reference_device"] == "cpu" and device != "cpu":
            return f"reference_device='cpu' is not where its parameters are, {device}"
        if group["distance_p"] not in (1, 2):
            return f"distance_p={group['distance_p']!r} has no fused kernel, only 1 and 2 have"
        if group["reference_dtype"] not in (None, dtype, *narrower):
            return (
                f"reference_dtype={group['reference_dtype']} differs from the parameters' {dtype}"
            )
        alone = group["reference_dtype"] not in narrower
        if alone and buffered and group["momentum_dtype"] in narrower:
            return (
                f"momentum_dtype={group['momentum_dtype']} beside {dtype} needs "
                f"reference_dtype={group['momentum_dtype']}, got {group['reference_dtype']}"
            )
    return device_obstacle(params[0].device, group) if device == "cuda" else None


def device_obstacle(device: torch.device, group: Mapping[str, Any]) -> str | None:
    """Return why a GPU cannot run the kernels of a group, or ``None``.

    The GPU may be older than those the extension was built for, the driver older than the CUDA
    runtime in it.
    """
    # Without a GPU the tensors have no values: memory estimators step such ones.
    if not torch.cuda.is_available() or torch.cuda.is_current_stream_capturing():
        return None
    dtype = floating_params(group)[0].dtype
    momentum = group["momentum_dtype"] if rule_of(group).buffers(group) else None
    reference = group["reference_dtype"] if is_tracked(group) else None
    return _probe(device, dtype, momentum or dtype, reference or dtype)


@cache
def _probe(device: torch.device, *dtypes: torch.dtype) -> str | None:
    fields = ("weight", "momentum", "reference")
    names = {f: str(d).removeprefix("torch.") for f, d in zip(fields, dtypes, strict=True)}
    with torch.cuda.device(device):
        reason = extension.cuda_obstacle(device=device.index, dtypes=extension.DTypeNames(**names))
    return f"{device} cannot run them ({reason})" if reason else None


def step_options(
    group: Mapping[str, Any],
    scalar: Callable[[str, float | Tensor], "float | _C.Scalar"] | None = None,
) -> "_C.StepOptions":
    """Return a group's options in the kernels' form.

    Args:
        group: the param group.
        scalar: how to pass ``lr``, ``lower`` and ``upper``, given name and value; by default as
            numbers, for which the host reads tensors.
    """
    convert = scalar or (lambda name, value: float(value))
    bounds = resolve_bounds(group)
    return extension.StepOptions(
        lr=convert("lr", group["lr"]),
        weight_decay=float(group["weight_decay"]),
        maximize=bool(group["maximize"]),
        distance_weight=float(group["distance_weight"]),
        p=int(group["distance_p"]) if is_tracked(group) else 2,
        center=getattr(extension.Center, bounds.center if bounds else "none"),
        lower=convert("lower", bounds.lower) if bounds else 0.0,
        upper=convert("upper", bounds.upper) if bounds else math.inf,
        relative=bounds.relative if bounds else False,
        **rule_of(group).kernel_options(group),
    )


def dtype_names(tensors: Mapping[str, Sequence[Tensor]]) -> dict[str, str]:
    """Return torch's names of a group's dtypes.

    A column that the group has not got counts as one of the weights' dtype, the reference beside a
    narrower momentum as one of that dtype: those are the combinations that have kernels.
    """
    weight = tensors["theta"][0].dtype
    momentum = tensors["momentum"][0].dtype if tensors["momentum"] else weight
    reference = min(weight, momentum, key=lambda dtype: dtype.itemsize)
    if tensors["reference"]:
        reference = tensors["reference"][0].dtype
    dtypes = {"weight": weight, "momentum": momentum, "reference": reference}
    return {name: str(dtype).removeprefix("torch.") for name, dtype in dtypes.items()}


def plan_arguments(
    tensors: Mapping[str, Sequence[Tensor]], joint_norm: bool, shard: Shard | None = None
) -> dict[str, Any]:
    """Return the arguments that the plans of both devices take.

    Args:
        tensors: ``theta`` and the columns ``STATE_COLUMNS`` of one group.
        joint_norm: one norm over the group.
        shard: given where the tensors are parts of larger ones.
    """
    columns: dict[str, Any] = {name: [t.data_ptr() for t in c] for name, c in tensors.items()}
    if shard is not None:
        columns.update(whole=shard.whole, counts=shard.counts)
    return {
        "dtypes": extension.DTypeNames(**dtype_names(tensors)),
        "columns": extension.Columns(numel=[t.numel() for t in tensors["theta"]], **columns),
        "joint_norm": joint_norm,
    }


def fit_gradient(grad: Tensor, p: Tensor) -> Tensor:
    """Return the gradient in the dtype and memory layout of its parameter, copied where needed."""
    return match_layout(grad.to(p.dtype), p)


# The columns of a param group's state that the kernels may address.
STATE_COLUMNS = ("compensation", "reference", "momentum", "variance", "steps", "distance")


def state_columns(group: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the names in the state of the kernels' columns; ``None`` where a group has none."""
    tracked, rule = is_tracked(group), rule_of(group)
    buffers = rule.buffers(group)
    compensated = tracked and any(p.dtype in HALF_TYPES for p in group["params"])
    return {
        "compensation": "compensation" if compensated else None,
        "reference": "reference" if tracked else None,
        "momentum": buffers.get("momentum"),
        "variance": buffers.get("variance"),
        "steps": "step" if rule.counts_steps else None,
        "distance": "distance" if tracked and group["distance_p"] == 2 else None,
    }


def prepare_state(p: Tensor, state: dict[str, Any], group: Mapping[str, Any]) -> bool:
    """Make the tensors that the kernels need beside ``p``, in its layout.

    Returns:
        True where SGD's momentum buffer holds no step yet.

    Raises:
        ValueError: a tensor of another shape than ``p``.
    """
    columns = state_columns(group)
    dtypes = {
        "momentum": buffer_dtype("momentum", p, group),
        "variance": buffer_dtype("variance", p, group),
        "reference": group["reference_dtype"] or p.dtype,
        "compensation": p.dtype,
    }
    first_step = take_buffers(p, {p: state}, group) if columns["momentum"] else False
    if columns["compensation"]:
        compensation_of(p, state)
    for column, dtype in dtypes.items():
        name = columns[column]
        if name is None:
            continue
        if state[name].shape != p.shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)}, its parameter {tuple(p.shape)}"
            )
        state[name] = match_layout(state[name].to(p.device, dtype), p)
    if columns["distance"]:
        distance = state.get("distance")
        state["distance"] = (_unknown_distance(p) if distance is None else distance).to(p.device)
    return first_step


def prepare_states(params: Sequence[Tensor], state: State, group: Mapping[str, Any]) -> list[bool]:
    """Call ``prepare_state`` for each parameter, where the group needs any state.

    Returns:
        Which momentum buffers hold no step yet; empty for a group without state, which leaves none,
        as in ``torch.optim.SGD``.
    """
    if not any(state_columns(group).values()):
        return []
    return [prepare_state(p, state[p], group) for p in params]


def _unknown_distance(p: Tensor) -> Tensor:
    unknown = math.nan if p.numel() else 0.0  # no kernel runs for an empty tensor
    return torch.tensor(unknown, dtype=torch.float64, device=p.device)


def forget_distance(p: Tensor, state: dict[str, Any]) -> None:
    """Make the next step compute the cached norm of ``p`` anew, where there is one."""
    if state.get("distance") is not None:
        # In place: a graph was compiled for the name, or captured with the address.
        state["distance"].copy_(_unknown_distance(p))
