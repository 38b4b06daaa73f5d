# SPDX-License-Identifier: Apache-2.0
"""Saving and loading beyond what ``torch.optim.Optimizer`` does.

The base class casts every tensor to its parameter's dtype and replaces whole groups, but the cached
norm is float64, a reference may have another dtype, and a state of plain SGD has neither references
nor the options of D3.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends.dtensor import is_dtensor, is_sharded, placed
from d3fast.optim.buffers import lacks_buffers, make_buffers, new_buffers
from d3fast.optim.layout import match_layout, on_host
from d3fast.optim.options import is_tracked
from d3fast.optim.rules import RULES, rule_of
from d3fast.optim.rules.base import buffer_dtype
from d3fast.optim.tracking import parts

State = MutableMapping[Tensor, dict[str, Any]]
Groups = Sequence[Mapping[str, Any]]


def initialize_state(groups: Groups, state: State) -> None:
    """Make the buffers of an optimizer with tracked groups.

    One without them is left to torch: it has no state, so that ``torch.distributed.checkpoint``
    initialises it by a step.
    """
    if any(map(is_tracked, groups)):
        for _, part in parts(groups):
            make_buffers(part, state)


def complete_state(state_dict: dict[str, Any], groups: Groups) -> dict[str, Any]:
    """Return a state dict that a later load finds complete; the optimizer's state is left alone.

    ``torch.distributed.checkpoint`` loads a saved state into the tensors of this one. SGD's
    ``step`` says of a buffer whether it holds a step; where no step is dampened it says nothing and
    is left out.

    Args:
        state_dict: what ``torch.optim.Optimizer.state_dict()`` returned.
        groups: the optimizer's param groups.
    """
    state = {i: dict(own) for i, own in state_dict["state"].items()}
    initialized = any(is_tracked(g) or is_sharded(g) for g in groups)
    params = ((p, group) for group in groups for p in group["params"])
    for i, (p, group) in enumerate(params):
        if initialized and (p.requires_grad or p.grad is not None):
            own = state.setdefault(i, {})
            rule = rule_of(group)
            if lacks_buffers(group, own):
                own.update(new_buffers(p, group))
            if rule.counts_steps:
                continue
            if is_sharded(group) or rule.starts_undampened(group):
                own.setdefault("step", torch.ones((), device="cpu"))
            else:
                own.pop("step", None)
    return {**state_dict, "state": state}


def with_own_options(
    given: dict[str, Any], groups: Groups, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a state dict whose groups have every option, missing ones as in the present group.

    Args:
        given: a state dict of this class or of its counterpart in ``torch.optim``.
        groups: the optimizer's param groups; another number of them is left to the base class.
        options: names of the options.

    Raises:
        ValueError: the state of another optimizer.
    """
    # A name that a flattened state dict lacks arrives as an empty dict.
    state = {
        i: {k: v for k, v in own.items() if v is not None and not (isinstance(v, dict) and not v)}
        for i, own in given["state"].items()
    }
    if len(groups) != len(given["param_groups"]):
        return given
    for ours, theirs in zip(groups, given["param_groups"], strict=True):
        _check_same_rule(ours, theirs)
    filled = [
        {**{name: ours[name] for name in options if name in ours}, **_tracks_all(theirs), **theirs}
        for ours, theirs in zip(groups, given["param_groups"], strict=True)
    ]
    return {**given, "state": state, "param_groups": filled}


def _check_same_rule(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    own = rule_of(ours)
    for rule in RULES:
        foreign = [name for name in rule.options if rule is not own and name in theirs]
        if foreign:
            raise ValueError(
                f"state_dict is of {rule.name}, it has the option {foreign[0]!r}; "
                f"this optimizer is {own.name}"
            )


def _tracks_all(group: Mapping[str, Any]) -> dict[str, str]:
    """Return ``track`` of a group saved by a version without that option, which tracked all."""
    return {"track": "all"} if "constraint" in group else {}


def restore_state(
    p: Tensor,
    states: State,
    saved: Mapping[str, Any],
    present: Tensor | None,
    group: Mapping[str, Any],
) -> None:
    """Correct what the base class did to the state of one parameter.

    Args:
        p: the parameter.
        states: the optimizer's state, as the base class left it.
        saved: the parameter's part of the saved state.
        present: its reference before the load, kept where the saved state has none.
        group: its param group.

    Raises:
        ValueError: a reference of another shape than the parameter.
    """
    theta_0 = saved.get("reference", present)
    if not saved and theta_0 is None:
        states.pop(p, None)
        return
    state = states[p]
    if theta_0 is not None:
        if theta_0.shape != p.shape:
            raise ValueError(
                f"reference has shape {tuple(theta_0.shape)}, its parameter {tuple(p.shape)}"
            )
        theta_0 = match_layout(placed(theta_0.detach().to(p.device), p, "reference"), p)
        hosted = present is not None and present.is_cpu
        state["reference"] = on_host(theta_0) if hosted else theta_0
    if "distance" in saved:
        state["distance"] = saved["distance"].detach().to(p.device, torch.float64, copy=True)
    rule = rule_of(group)
    for column, name in rule.state_names.items():
        if saved.get(name) is None:
            state.pop(name, None)
        else:
            # From what was saved: the base class may have rounded it already.
            buffer = saved[name].detach().to(p.device, buffer_dtype(column, p, group))
            state[name] = match_layout(placed(buffer, p, name), p)
    if "step" in saved:
        device = p.device if rule.counts_steps else "cpu"
        state["step"] = torch.as_tensor(saved["step"]).detach().to(device, torch.float32, copy=True)
        if not rule.counts_steps and not is_dtensor(p) and state["step"] != 0:
            del state["step"]
    if "compensation" in state:
        state["compensation"] = match_layout(placed(state["compensation"], p, "compensation"), p)
