# SPDX-License-Identifier: Apache-2.0
"""``Rule``: the interface of a rule, and what its parts get to see."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

Group = Mapping[str, Any]


class Buffers(Protocol):
    """The gradient of one parameter and the buffers of its rule, all of the parameter's shape.

    Attributes:
        grad: the gradient g, any strides.
        momentum_buffer: first moment, or ``None`` where the rule keeps none.
        first: the momentum buffer holds no earlier step.
        variance: second moment, likewise.
        steps: number of steps that the buffers hold, 0-dim, or ``None``.
    """

    grad: Tensor
    momentum_buffer: Tensor | None
    first: bool
    variance: Tensor | None
    steps: Tensor | None


@dataclass(frozen=True)
class Rule:
    """What the step of one optimizer has of its own.

    Args:
        name: for messages.
        options: options of a group that no other rule reads.
        state_names: names of its buffers in the state, by the kernels' column: ``"momentum"`` and
            ``"variance"``.
        check: raise ``ValueError`` for one of them outside its range.
        buffers: those of them that a group needs.
        counts_steps: ``state["step"]`` counts the steps of a parameter, on its device.
        starts_undampened: the first step of a buffer is another than the later ones.
        update: weights after the step, not projected, from weights, buffers, push u (0 where there
            is none) and options; writes the buffers.
        kernel_options: the fields of ``_C.StepOptions`` that the rule reads.
        numbers: the options that a schedule may change, as the compiled step passes them.
        variant: the others, as one string.
        from_numbers: the options from variant and numbers.
    """

    name: str
    options: tuple[str, ...]
    state_names: Mapping[str, str]
    check: Callable[[Group], None]
    buffers: Callable[[Group], Mapping[str, str]]
    counts_steps: bool
    starts_undampened: Callable[[Group], bool]
    update: Callable[[Tensor, Buffers, Tensor | None, Group], Tensor]
    kernel_options: Callable[[Group], dict[str, Any]]
    numbers: Callable[[Group], list[Any]]
    variant: Callable[[Group], str]
    from_numbers: Callable[[str, Sequence[Any]], dict[str, Any]]


def ascent_or_descent(m: Buffers, theta: Tensor, group: Group) -> Tensor:
    """Return the gradient in the dtype of ``theta``, its sign flipped where ``maximize``."""
    grad = m.grad.to(theta.dtype)
    return -grad if group["maximize"] else grad


def learning_rate(group: Group) -> "float | Tensor":
    """Return ``lr`` as a number or a 0-dim tensor."""
    lr: float | Tensor = group["lr"]
    return lr.reshape(()) if isinstance(lr, Tensor) else lr


def buffer_dtype(column: str, p: Tensor, group: Group) -> torch.dtype:
    """Return the dtype of a buffer beside ``p``.

    ``momentum_dtype``, by default that of the weights. A second moment changes by 0.1 % in a step,
    which a half type would round away: it is float32 or wider.
    """
    if column == "variance":
        return torch.promote_types(p.dtype, torch.float32)
    dtype: torch.dtype = group["momentum_dtype"] or p.dtype
    return dtype
