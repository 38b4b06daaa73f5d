# SPDX-License-Identifier: Apache-2.0
"""Checks of one param group: options and parameters when it is added, gradients at each step.

A schedule may change any option between steps, so the options are checked again before anything
moves; the parameters are checked once. Numbers on a device are not read: the host would wait for
it.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.constraints import resolve_bounds
from d3fast.optim.rules import rule_of
from d3fast.runtime.checks import check_choice, check_number

SCOPES = ("tensor", "group")
RADIUS_UNITS = ("relative", "absolute")
BACKENDS = ("auto", "fused", "reference")


def is_tracked(group: Mapping[str, Any]) -> bool:
    """Return whether the group is pushed or projected; the others take the plain step."""
    return group["constraint"] is not None or group["distance_weight"] != 0


def backend_of(backend: str, foreach: bool | None, fused: bool | None, differentiable: bool) -> str:
    """Return the backend that an optimizer's ``backend`` and options of torch ask for.

    Raises:
        ValueError: an option that would change the step; ``fused=True`` beside another backend.
    """
    if differentiable:
        raise ValueError(
            f"differentiable={differentiable!r} is not supported: the step writes in place, "
            "outside autograd"
        )
    if foreach:
        raise ValueError(
            f"foreach={foreach!r} is not supported: there is no multi-tensor implementation; "
            "backend='fused' steps all tensors of a group in one call"
        )
    if fused and backend not in ("auto", "fused"):
        raise ValueError(f"fused={fused!r} contradicts backend={backend!r}")
    return "fused" if fused else backend


def floating_params(group: Mapping[str, Any]) -> list[Tensor]:
    """Return the floating parameters; those of a quantised model are integers in part."""
    return [p for p in group["params"] if p.is_floating_point()]


def _check_number(name: str, value: Any, minimum: float) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a 1-element tensor, got shape {tuple(value.shape)}")
        if not value.is_cpu:
            return
        value = value.item()
    check_number(name, value, minimum)


def check_group(group: Mapping[str, Any]) -> None:
    """Check one complete param group (options and params).

    Raises:
        ValueError: an option outside its range; parameters on more than one device; complex or
            meta parameters.
    """
    check_options(group)
    _check_params(group["params"])


def check_options(group: Mapping[str, Any]) -> None:
    """Check the options of a param group.

    Raises:
        ValueError: an option outside its range, or options that exclude each other.
    """
    for name in ("lr", "weight_decay", "distance_weight"):
        _check_number(name, group[name], 0.0)
    rule_of(group).check(group)
    _check_number("distance_p", group["distance_p"], 1.0)
    check_choice("scope", group["scope"], SCOPES)
    check_choice("radius_unit", group["radius_unit"], RADIUS_UNITS)
    check_choice("backend", group["backend"], BACKENDS)
    for name in ("reference_dtype", "momentum_dtype"):
        dtype = group[name]
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise ValueError(f"{name} must be a floating torch.dtype, got {dtype!r}")
    if group["reference_device"] not in (None, "cpu"):
        raise ValueError(
            f"reference_device must be None or 'cpu', got {group['reference_device']!r}"
        )
    resolve_bounds(group)


def check_gradient(grad: Tensor, p: Tensor) -> None:
    """Check the gradient of one parameter.

    Raises:
        ValueError: a sparse gradient, or one of another shape or on another device.
    """
    if grad.layout != torch.strided:
        raise ValueError(f"the step needs dense gradients, got one of layout {grad.layout}")
    if grad.shape != p.shape or grad.device != p.device:
        raise ValueError(
            f"a gradient has shape {tuple(grad.shape)} on {grad.device}, its parameter "
            f"{tuple(p.shape)} on {p.device}"
        )


def _check_params(params: list[Tensor]) -> None:
    devices = {p.device for p in params}
    if len(devices) > 1:
        names = ", ".join(sorted(map(str, devices)))
        raise ValueError(f"params of one group must be on one device, got {names}")
    for p in params:
        if p.is_meta:
            raise ValueError(
                f"params must have storage, got a parameter of shape {tuple(p.shape)} on device "
                "'meta': build the optimizer once the model is materialised (to_empty() and "
                "load_state_dict(), or load_state_dict(assign=True))"
            )
        if p.is_complex():
            raise ValueError(f"params must be real floating point, got a parameter of {p.dtype}")
