# SPDX-License-Identifier: Apache-2.0
"""What loading a state dict needs beyond what ``torch.optim.Optimizer`` does.

The base class casts every tensor to its parameter's dtype and replaces whole groups: the carried
norm is float64, a reference may be kept in another dtype, and a state of plain SGD knows neither
references nor the options of D3.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.anchors import match_layout, on_host
from d3fast.optim.backends.dtensor import placed


def with_own_options(
    given: dict[str, Any], groups: Sequence[Mapping[str, Any]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """A state dict whose groups have every option: their own, else that of the present group.

    Args:
        given: a state dict of ``D3FusedSGD`` or ``torch.optim.SGD``.
        groups: the optimizer's param groups; another number of them is left to the base class.
        options: names of the options.
    """
    if len(groups) != len(given["param_groups"]):
        return given
    filled = [
        {**{name: ours[name] for name in options if name in ours}, **theirs}
        for ours, theirs in zip(groups, given["param_groups"], strict=True)
    ]
    return {**given, "param_groups": filled}


def restore_state(
    p: Tensor,
    states: MutableMapping[Tensor, dict[str, Any]],
    saved: Mapping[str, Any],
    present: Tensor | None,
    momentum_dtype: torch.dtype | None = None,
) -> None:
    """Put right what the base class did to one parameter's state.

    Args:
        p: the parameter.
        states: the optimizer's state, as the base class left it.
        saved: the parameter's part of the saved state.
        present: its reference before the load, kept where the saved state has none.
        momentum_dtype: of the group.

    Raises:
        ValueError: a reference of another shape than the parameter.
    """
    theta_0 = saved.get("reference", present)
    if not saved and theta_0 is None:
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
    if state.get("momentum_buffer") is not None:
        # From what was saved: the base class may have rounded it already.
        buffer = saved["momentum_buffer"].detach().to(p.device, momentum_dtype or p.dtype)
        buffer = placed(buffer, p, "momentum_buffer")
        state["momentum_buffer"] = match_layout(buffer, p)
    else:
        state.pop("momentum_buffer", None)
    if "compensation" in state:
        state["compensation"] = match_layout(placed(state["compensation"], p, "compensation"), p)
