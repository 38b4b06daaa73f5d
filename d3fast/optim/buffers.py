# SPDX-License-Identifier: Apache-2.0
"""State that a step needs: references checked, momentum buffers and compensations made.

``torch.distributed.checkpoint`` takes an optimizer with any state for initialised, and of a
flattened state dict loads only the names in that state. An optimizer with references therefore has
its buffers from the start. They are zeros, which changes no step but a dampened one, because the
first step of a buffer is not dampened: ``state["step"]`` is 0 until that step is taken.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.kahan import compensation_of
from d3fast.optim.options import check_gradient, check_options, is_tracked

State = MutableMapping[Tensor, dict[str, Any]]


def make_buffers(group: Mapping[str, Any], state: State) -> None:
    """Make the momentum buffers and compensations that a group's trainable parameters lack."""
    for p in group["params"]:
        if not p.requires_grad and p.grad is None:
            continue
        if is_tracked(group):
            compensation_of(p, state[p])
        if group["momentum"] != 0 and state.get(p, {}).get("momentum_buffer") is None:
            state[p].update(new_momentum(p, group))


def drop_unused_buffers(group: Mapping[str, Any], state: State) -> None:
    """Drop what parameters without a gradient have not used: SGD keeps nothing for them either."""
    for p in group["params"]:
        if p.grad is None and "step" in state.get(p, ()):
            for name in ("momentum_buffer", "step"):
                del state[p][name]


def new_momentum(p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of a momentum buffer that holds no step: zeros like ``p`` and step 0."""
    buffer = torch.zeros_like(p, dtype=group["momentum_dtype"], requires_grad=False)
    return {"momentum_buffer": buffer, "step": torch.zeros((), device="cpu")}


def is_first_step(p: Tensor, state: Mapping[Tensor, Mapping[str, Any]]) -> bool:
    """Return whether the momentum buffer of a parameter that is no DTensor holds no step yet."""
    own = state.get(p, {})
    return own.get("momentum_buffer") is None or "step" in own


def has_references(params: Iterable[Tensor], state: State) -> bool:
    """Return whether every floating parameter has a reference."""
    return all("reference" in state.get(p, ()) for p in params if p.is_floating_point())


def require_references(
    index: int, group: Mapping[str, Any], params: Iterable[Tensor], state: State
) -> None:
    """Raise ``ValueError`` where parameters of a tracked group have no reference."""
    if not has_references(params, state):
        raise ValueError(
            f"param group {index} is tracked (distance_weight={group['distance_weight']!r}, "
            f"constraint={group['constraint']!r}) but was added untracked, without reference=; "
            "set_reference() takes one now"
        )


def check_step(
    index: int, group: Mapping[str, Any], params: Sequence[Tensor], state: State
) -> None:
    """Check the coming step of a param group.

    Args:
        index: number of the group, for messages.
        group: the param group.
        params: its parameters that have a gradient.
        state: the optimizer's state.

    Raises:
        ValueError: an option out of its range; a gradient or a reference that cannot be used.
    """
    check_options(group)
    for p in params:
        if p.grad is not None:
            check_gradient(p.grad, p)
    if is_tracked(group):
        require_references(index, group, params, state)
