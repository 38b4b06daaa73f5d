# SPDX-License-Identifier: Apache-2.0
"""Reference copies theta_0: where they come from, and keeping them in the optimizer's state."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends.dtensor import placed
from d3fast.optim.backends.native import forget_distance
from d3fast.optim.buffers import has_references
from d3fast.optim.layout import on_host
from d3fast.optim.options import is_tracked

References = Sequence[Tensor] | Mapping[str, Tensor]
State = MutableMapping[Tensor, dict[str, Any]]


def keep_references(group: Mapping[str, Any], state: State, given: References | None) -> None:
    """Put copies of theta_0 into the state of one group.

    Args:
        group: the param group.
        state: the optimizer's state.
        given: one tensor per parameter, or a mapping from parameter names; the current weights if
            ``None``.

    Raises:
        ValueError: a tensor missing, or of another shape than its parameter.
    """
    tensors = resolve_references(
        given, group["params"], group.get("param_names"), group["reference_dtype"]
    )
    for p, theta_0 in zip(group["params"], tensors, strict=True):
        if theta_0 is not None:
            hosted = group["reference_device"] == "cpu"
            state[p]["reference"] = on_host(theta_0) if hosted else theta_0
            forget_distance(p, state[p])


def assign_references(
    groups: Sequence[Mapping[str, Any]], state: State, given: References | None
) -> None:
    """Put copies of theta_0 into the state of several groups.

    Args:
        groups: the param groups.
        state: the optimizer's state.
        given: one tensor per parameter of all groups in order, or a mapping from parameter names;
            the current weights if ``None``.

    Raises:
        ValueError: a tensor missing, or of another shape than its parameter.
    """
    if given is None or isinstance(given, Mapping):
        for group in groups:
            keep_references(group, state, given)
        return
    count = sum(len(group["params"]) for group in groups)
    if len(given) != count:
        raise ValueError(
            f"reference must hold {count} tensors, one per tracked parameter, got {len(given)}"
        )
    start = 0
    for group in groups:
        end = start + len(group["params"])
        keep_references(group, state, given[start:end])
        start = end


def assign_initial_references(
    groups: Sequence[Mapping[str, Any]], state: State, given: References
) -> None:
    """Assign the ``reference`` of a constructor to the groups that brought none of their own.

    Those are the tracked ones. Where none of them is tracked, the references are for groups that
    a schedule will track later.
    """
    bare = [group for group in groups if not has_references(group["params"], state)]
    assign_references([group for group in bare if is_tracked(group)] or bare, state, given)


def resolve_references(
    given: Sequence[Tensor] | Mapping[str, Tensor] | None,
    params: Sequence[Tensor],
    names: Sequence[str] | None,
    dtype: torch.dtype | None,
) -> list[Tensor | None]:
    """Return a copy of theta_0 per parameter, laid out like it; ``None`` for integer parameters.

    Args:
        given: one tensor per parameter, or a mapping from parameter names; the parameters
            themselves if ``None``.
        params: the group's parameters.
        names: their names, needed for a mapping.
        dtype: dtype of the copies; each parameter's own if ``None``.

    Raises:
        ValueError: a tensor missing, not a tensor, or of another shape than its parameter.
    """
    labels = list(names) if names else [f"parameter {i}" for i in range(len(params))]
    if given is None:
        chosen: list[Any] = list(params)
    elif isinstance(given, Mapping):
        if not names:
            raise ValueError("reference is a mapping, but the parameters have no names")
        floating = [p.is_floating_point() for p in params]
        missing = [n for n, needs in zip(names, floating, strict=True) if needs and n not in given]
        if missing:
            raise ValueError(f"reference has no tensor for {', '.join(missing)}")
        chosen = [given.get(n) for n in names]
    else:
        chosen = list(given)
        if len(chosen) != len(params):
            raise ValueError(
                f"reference must hold {len(params)} tensors, one per parameter, got {len(chosen)}"
            )
    copies: list[Tensor | None] = []
    for label, theta_0, p in zip(labels, chosen, params, strict=True):
        if not p.is_floating_point():
            copies.append(None)
            continue
        if not isinstance(theta_0, Tensor) or theta_0.shape != p.shape:
            got = tuple(theta_0.shape) if isinstance(theta_0, Tensor) else type(theta_0).__name__
            raise ValueError(f"reference of {label} must have shape {tuple(p.shape)}, got {got}")
        copy = torch.empty_like(p, dtype=dtype or p.dtype, requires_grad=False)
        copies.append(copy.copy_(placed(theta_0.detach(), p, f"reference of {label}")))
    return copies
