# SPDX-License-Identifier: Apache-2.0
"""The rule of ``torch.optim.SGD``, with the push u of the distance in the gradient.

    d = g + weight_decay * theta - u
    v <- momentum * v + (1 - dampening) * d          (v <- d on the first step)
    theta <- theta - lr * (d + momentum * v  if nesterov else  v)

Source: Sutskever, Martens, Dahl and Hinton, ICML 2013, in the form that PyTorch gives it.
"""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from d3fast.optim.rules.base import Buffers, Group, Rule, ascent_or_descent, learning_rate
from d3fast.runtime.checks import check_number


def _check(group: Group) -> None:
    for name in ("momentum", "dampening"):
        if isinstance(group[name], Tensor):
            raise ValueError(f"{name} must be a number, got a tensor")
    check_number("momentum", group["momentum"], 0.0)
    check_number("dampening", group["dampening"], -math.inf)
    if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
        raise ValueError(
            "nesterov needs momentum > 0 and dampening = 0, got "
            f"momentum={group['momentum']!r}, dampening={group['dampening']!r}"
        )


_STATE_NAMES = {"momentum": "momentum_buffer"}


def _buffers(group: Group) -> dict[str, str]:
    return _STATE_NAMES if group["momentum"] != 0 else {}


def _starts_undampened(group: Group) -> bool:
    return bool(group["dampening"] != 0 and group["momentum"] != 0)


def _update(theta: Tensor, m: Buffers, push: Tensor | None, group: Group) -> Tensor:
    d = ascent_or_descent(m, theta, group) + group["weight_decay"] * theta
    if push is not None:
        d = d - push
    lr = learning_rate(group)
    if m.momentum_buffer is None:
        return theta - lr * d
    momentum, damping = group["momentum"], 1.0 if m.first else 1.0 - group["dampening"]
    v = momentum * m.momentum_buffer.to(theta.dtype) + damping * d
    m.momentum_buffer.copy_(v)
    return theta - lr * (d + momentum * v if group["nesterov"] else v)


def _kernel_options(group: Group) -> dict[str, Any]:
    return {
        "momentum": float(group["momentum"]),
        "dampening": float(group["dampening"]),
        "nesterov": bool(group["nesterov"]),
    }


def _numbers(group: Group) -> list[Any]:
    return [group["momentum"], group["dampening"]]


def _variant(group: Group) -> str:
    return "nesterov" if group["nesterov"] else "sgd"


def _from_numbers(variant: str, numbers: Sequence[Any]) -> dict[str, Any]:
    momentum, dampening = numbers
    return {"momentum": momentum, "dampening": dampening, "nesterov": variant == "nesterov"}


SGD = Rule(
    name="SGD",
    options=("momentum", "dampening", "nesterov"),
    state_names=_STATE_NAMES,
    check=_check,
    buffers=_buffers,
    counts_steps=False,
    starts_undampened=_starts_undampened,
    update=_update,
    kernel_options=_kernel_options,
    numbers=_numbers,
    variant=_variant,
    from_numbers=_from_numbers,
)
