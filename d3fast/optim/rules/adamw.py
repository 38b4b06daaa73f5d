# SPDX-License-Identifier: Apache-2.0
"""The rule of ``torch.optim.AdamW``, with the push u of the distance in the gradient or beside it.

::

    d = g - u                                        (decoupled push: d = g)
    m <- beta_1 m + (1 - beta_1) d,   s <- beta_2 s + (1 - beta_2) d^2
    theta <- (1 - lr * weight_decay) theta - lr * m^ / (sqrt(s^) + eps)
                                                     (decoupled push: + lr * u)

m^ = m / (1 - beta_1^t) and s^ = s / (1 - beta_2^t) are the moments without their bias to 0 after
step t. Source: Loshchilov and Hutter, arXiv 1711.05101.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.rules.base import Buffers, Group, Rule, ascent_or_descent, learning_rate
from d3fast.runtime.checks import check_number


def _check(group: Group) -> None:
    if group.get("amsgrad"):
        raise ValueError(
            f"amsgrad={group['amsgrad']!r} is not supported: it needs the largest second moment, "
            "a third buffer"
        )
    betas = group["betas"]
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ValueError(f"betas must be two numbers, got {betas!r}")
    for name, value in [*zip(("betas[0]", "betas[1]"), betas, strict=True), ("eps", group["eps"])]:
        if isinstance(value, Tensor):
            raise ValueError(f"{name} must be a number, got a tensor")
        check_number(name, value, 0.0)
    for i, beta in enumerate(betas):
        if beta >= 1:
            raise ValueError(f"betas[{i}] must be < 1, got {beta!r}")


_STATE_NAMES = {"momentum": "exp_avg", "variance": "exp_avg_sq"}


def _update(theta: Tensor, m: Buffers, push: Tensor | None, group: Group) -> Tensor:
    assert m.momentum_buffer is not None
    assert m.variance is not None
    assert m.steps is not None
    d = ascent_or_descent(m, theta, group)
    if push is not None and not group["decoupled_push"]:
        d = d - push
    first, second = group["betas"]
    exp_avg = first * m.momentum_buffer.to(theta.dtype) + (1 - first) * d
    exp_avg_sq = second * m.variance.to(theta.dtype) + (1 - second) * d * d
    m.momentum_buffer.copy_(exp_avg)
    m.variance.copy_(exp_avg_sq)
    m.steps.add_(1)
    lr = learning_rate(group)
    bias, bias_sq = (1 - _power(beta, m.steps) for beta in (first, second))
    root = (exp_avg_sq / bias_sq.to(theta.dtype)).sqrt() + group["eps"]
    step = exp_avg / bias.to(theta.dtype) / root
    if push is not None and group["decoupled_push"]:
        step = step - push
    return (1 - lr * group["weight_decay"]) * theta - lr * step


def _power(beta: float, steps: Tensor) -> Tensor:
    """Return ``beta^t``, 0-dim float64, without waiting for the device."""
    return torch.full_like(steps, beta, dtype=torch.float64) ** steps.double()


def _kernel_options(group: Group) -> dict[str, Any]:
    first, second = group["betas"]
    return {
        "adamw": True,
        "beta1": float(first),
        "beta2": float(second),
        "eps": float(group["eps"]),
        "decoupled_push": bool(group["decoupled_push"]),
    }


def _numbers(group: Group) -> list[Any]:
    first, second = group["betas"]
    return [first, second, group["eps"]]


def _variant(group: Group) -> str:
    return "adamw_decoupled_push" if group["decoupled_push"] else "adamw"


def _from_numbers(variant: str, numbers: Sequence[Any]) -> dict[str, Any]:
    first, second, eps = numbers
    decoupled = variant == "adamw_decoupled_push"
    return {"betas": (first, second), "eps": eps, "decoupled_push": decoupled}


ADAMW = Rule(
    name="AdamW",
    options=("betas", "eps", "amsgrad", "decoupled_push"),
    state_names=_STATE_NAMES,
    check=_check,
    buffers=lambda group: _STATE_NAMES,
    counts_steps=True,
    starts_undampened=lambda group: False,
    update=_update,
    kernel_options=_kernel_options,
    numbers=_numbers,
    variant=_variant,
    from_numbers=_from_numbers,
)
