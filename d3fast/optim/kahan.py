# SPDX-License-Identifier: Apache-2.0
"""Kahan compensation: weights of a half type that do not lose small updates.

A step is computed in float32. Rounding to bfloat16 loses every update below 1/512 of a weight.
Kahan's method keeps the rounding error in a second tensor of the same dtype and adds it to the
weight before the next step:

    x = theta + c                 the weight that steps are taken from, in float32
    theta <- round(x),  c <- round(x - theta)

``docs/precision.md`` has the measurements: after 1,000 steps theta is within a few percent of the
way from where float64 is, most of it the rounding of theta itself.

Source: Kahan, "Further remarks on reducing truncation errors", CACM 8 (1965).
"""

from typing import Any

import torch
from torch import Tensor

from d3fast._renamed import renamed_names

HALF_TYPES = (torch.bfloat16, torch.float16)


def compensation_of(p: Tensor, state: dict[str, Any]) -> Tensor | None:
    """Return ``state["compensation"]`` of a parameter of a half type, made where missing.

    Returns:
        A tensor like ``p``, or ``None`` for wider types, which need none.
    """
    if p.dtype not in HALF_TYPES:
        return None
    if state.get("compensation") is None:
        state["compensation"] = torch.zeros_like(p, requires_grad=False)
    remainder: Tensor = state["compensation"]
    return remainder


def kahan_load(theta: Tensor, compensation: Tensor | None) -> Tensor:
    """Return ``theta + c`` in float32 (in theta's own dtype where that is wider).

    A compensation that cannot be the rounding error of theta, because theta was changed or is
    infinite, counts as 0.

    Args:
        theta: weights, any shape, any floating dtype.
        compensation: c, shape of ``theta``; ``None`` for no compensation.

    Example:
        >>> theta, c = torch.ones(1, dtype=torch.bfloat16), torch.tensor([0.001])
        >>> kahan_load(theta, c), kahan_load(0 * theta, c)
        (tensor([1.0010]), tensor([0.]))
    """
    wide = theta.to(torch.promote_types(theta.dtype, torch.float32))
    if compensation is None:
        return wide
    kind = torch.finfo(theta.dtype)
    # Half a spacing of the dtype, never more than this share of the weight.
    most = wide.abs().clamp(min=kind.tiny) * (kind.eps / 2)
    c = compensation.to(wide.dtype)
    return wide + torch.where((c.abs() <= most) & c.isfinite(), c, torch.zeros_like(c))


def kahan_store(weight: Tensor, theta: Tensor, compensation: Tensor | None) -> None:
    """Store a weight in ``theta`` and its rounding error in ``compensation``, in place.

    Args:
        weight: x, shape of ``theta``, float32 or wider.
        theta: receives the weights.
        compensation: receives the rounding error; ``None`` for no compensation.

    Example:
        >>> theta, c = torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1, dtype=torch.bfloat16)
        >>> kahan_store(torch.tensor([1.001]), theta, c)
        >>> theta.item(), round(c.item(), 4)
        (1.0, 0.001)
    """
    theta.copy_(weight)
    if compensation is not None:
        compensation.copy_(weight - theta.to(weight.dtype))


__getattr__ = renamed_names(__name__, {"whole_weight": "kahan_load", "keep": "kahan_store"})
