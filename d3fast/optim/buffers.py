# SPDX-License-Identifier: Apache-2.0
"""State that a step needs: references checked, buffers of the rule and compensations made.

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
from d3fast.optim.rules import rule_of
from d3fast.optim.rules.base import buffer_dtype

State = MutableMapping[Tensor, dict[str, Any]]


def make_buffers(group: Mapping[str, Any], state: State) -> None:
    """Make the buffers and compensations that a group's trainable parameters lack."""
    for p in group["params"]:
        if not p.requires_grad and p.grad is None:
            continue
        if is_tracked(group):
            compensation_of(p, state[p])
        if lacks_buffers(group, state.get(p, {})):
            state[p].update(new_buffers(p, group))


def drop_unused_buffers(group: Mapping[str, Any], state: State) -> None:
    """Drop what parameters without a gradient have not used: SGD keeps nothing for them either."""
    if rule_of(group).counts_steps:
        return  # the count lies on the device
    for p in group["params"]:
        if p.grad is None and "step" in state.get(p, ()):
            for name in ("momentum_buffer", "step"):
                del state[p][name]


def lacks_buffers(group: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    """Return whether a parameter's state lacks a buffer of the group's rule."""
    return any(own.get(name) is None for name in rule_of(group).buffers(group).values())


def new_buffers(p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of buffers that hold no step: zeros like ``p`` and step 0."""
    rule = rule_of(group)
    zeros = {
        name: torch.zeros_like(p, dtype=buffer_dtype(column, p, group), requires_grad=False)
        for column, name in rule.buffers(group).items()
    }
    device = p.device if rule.counts_steps else "cpu"
    return {**zeros, "step": torch.zeros((), device=device, dtype=torch.float32)}


def is_first_step(p: Tensor, state: Mapping[Tensor, Mapping[str, Any]]) -> bool:
    """Return whether SGD's momentum buffer of a parameter, no DTensor, holds no step yet."""
    own = state.get(p, {})
    return own.get("momentum_buffer") is None or "step" in own


def take_buffers(p: Tensor, state: MutableMapping[Tensor, dict[str, Any]], group: Any) -> bool:
    """Make the buffers that the coming step of ``p`` needs where they are missing.

    Returns:
        Whether SGD's momentum buffer holds no step yet.
    """
    counts = rule_of(group).counts_steps
    first = not counts and is_first_step(p, state)
    own = state[p]
    if lacks_buffers(group, own):
        own.update(new_buffers(p, group))
    if counts:
        own["step"] = own["step"].to(p.device, torch.float32)
    else:
        own.pop("step", None)
    return first


def buffers_of(
    own: Mapping[str, Any], group: Mapping[str, Any]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return first moment, second moment and step count of a parameter's state."""
    rule = rule_of(group)
    names = rule.buffers(group)
    found = [own[names[column]] if column in names else None for column in ("momentum", "variance")]
    return found[0], found[1], own["step"] if rule.counts_steps else None


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
