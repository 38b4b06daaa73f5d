# SPDX-License-Identifier: Apache-2.0
"""Reference copies theta_0: which parameters get one, its source, and keeping it in the state."""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends.dtensor import all_reduce_rows, local, placed
from d3fast.optim.backends.native import forget_distance
from d3fast.optim.buffers import has_references
from d3fast.optim.layout import is_fake, on_host
from d3fast.optim.options import is_tracked
from d3fast.optim.tracking import tracked_params, tracked_positions

References = Sequence[Tensor] | Mapping[str, Tensor]
State = MutableMapping[Tensor, dict[str, Any]]


def choose_by_reference(group: Mapping[str, Any], given: Any) -> str | tuple[int, ...]:
    """Return which parameters a group without ``track`` tracks.

    Those have two or more dimensions and a reference that is not all zero: a norm sphere of radius
    0 would keep a weight at 0 for ever.

    Args:
        group: the group. With DTensors every rank of their mesh has to call this.
        given: the ``reference`` of the group, the current weights if ``None``.

    Returns:
        ``"all"`` or positions.
    """
    params = group["params"]
    if given is None:
        given = params
    elif isinstance(given, Mapping):
        given = [given.get(name) for name in group.get("param_names") or [None] * len(params)]
    if len(given) != len(params):
        return "all"  # keep_references raises
    matrices = {i: given[i] for i, p in enumerate(params) if p.dim() >= 2 and p.is_floating_point()}
    tensors = {i: t.detach() for i, t in matrices.items() if isinstance(t, Tensor)}
    zeros = {i for i, any_ in zip(tensors, _any(list(tensors.values())), strict=True) if not any_}
    chosen = tuple(i for i in matrices if i not in zeros)
    return "all" if len(chosen) == sum(p.is_floating_point() for p in params) else chosen


@torch.no_grad()
def _any(tensors: Sequence[Tensor]) -> list[bool]:
    """Return which tensors hold a value that is not 0, over all ranks; the host waits once."""
    if any(map(is_fake, tensors)):
        return [True] * len(tensors)
    if not tensors:
        return []
    device = local(tensors[0]).device
    rows = torch.stack([(local(t) != 0).any().float().to(device) for t in tensors])[:, None]
    return (all_reduce_rows(rows, tensors, torch.zeros_like(rows[0]))[:-1, 0] > 0).tolist()


def keep_references(group: dict[str, Any], state: State, given: References | None) -> None:
    """Put copies of theta_0 into the state of the tracked parameters of one group.

    Args:
        group: the param group; where its ``track`` is ``None``, it is chosen now.
        state: the optimizer's state.
        given: one tensor per parameter, or a mapping from parameter names; the current weights if
            ``None``.

    Raises:
        ValueError: a tensor missing, or of another shape than its parameter.
    """
    if group["track"] is None:
        group["track"] = choose_by_reference(group, given)
    tensors = resolve_references(
        given,
        group["params"],
        group.get("param_names"),
        group["reference_dtype"],
        tracked_positions(group),
    )
    for p, theta_0 in zip(group["params"], tensors, strict=True):
        if theta_0 is not None:
            hosted = group["reference_device"] == "cpu"
            state[p]["reference"] = on_host(theta_0) if hosted else theta_0
            forget_distance(p, state[p])


def assign_references(
    groups: Sequence[dict[str, Any]], state: State, given: References | None
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
    groups: Sequence[dict[str, Any]], state: State, given: References
) -> None:
    """Assign the ``reference`` of a constructor to the groups that brought none of their own.

    Those are the tracked ones. Where none of them is tracked, the references are for groups that
    a schedule will track later.
    """
    bare = [group for group in groups if not has_references(tracked_params(group), state)]
    assign_references([group for group in bare if is_tracked(group)] or bare, state, given)


def resolve_references(
    given: Sequence[Tensor] | Mapping[str, Tensor] | None,
    params: Sequence[Tensor],
    names: Sequence[str] | None,
    dtype: torch.dtype | None,
    positions: Sequence[int] | None = None,
) -> list[Tensor | None]:
    """Return a copy of theta_0 per parameter, laid out like it; ``None`` where none is needed.

    Integer parameters and those that are not tracked need none.

    Args:
        given: one tensor per parameter, or a mapping from parameter names; the parameters
            themselves if ``None``.
        params: the group's parameters.
        names: their names, needed for a mapping.
        dtype: dtype of the copies; each parameter's own if ``None``.
        positions: positions of the tracked parameters; all if ``None``.

    Raises:
        ValueError: a tensor missing, not a tensor, or of another shape than its parameter.
    """
    tracked = set(range(len(params)) if positions is None else positions)
    needed = [i in tracked and p.is_floating_point() for i, p in enumerate(params)]
    labels = list(names) if names else [f"parameter {i}" for i in range(len(params))]
    if given is None:
        chosen: list[Any] = list(params)
    elif isinstance(given, Mapping):
        if not names:
            raise ValueError("reference is a mapping, but the parameters have no names")
        missing = [n for n, needs in zip(names, needed, strict=True) if needs and n not in given]
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
    for label, theta_0, p, needs in zip(labels, chosen, params, needed, strict=True):
        if not needs:
            copies.append(None)
            continue
        if not isinstance(theta_0, Tensor) or theta_0.shape != p.shape:
            got = tuple(theta_0.shape) if isinstance(theta_0, Tensor) else type(theta_0).__name__
            raise ValueError(f"reference of {label} must have shape {tuple(p.shape)}, got {got}")
        copy = torch.empty_like(p, dtype=dtype or p.dtype, requires_grad=False)
        copies.append(copy.copy_(placed(theta_0.detach(), p, f"reference of {label}")))
    return copies
