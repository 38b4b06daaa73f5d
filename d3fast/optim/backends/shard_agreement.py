# SPDX-License-Identifier: Apache-2.0
"""What every rank is to step, compared between the ranks, and the error where it differs."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from d3fast.optim.backends.dtensor import all_reduce, gather, is_dtensor, local, mesh_of
from d3fast.optim.backends.group_plan import plan_key
from d3fast.optim.options import is_tracked

Group = Mapping[str, Any]
Part = tuple[int, int, Group]  # number of the part over all groups, number of its group, the part
Entry = tuple[str, bool, bool, str]  # parameter, whether tracked, whether with gradient, options

OTHER_REFUSED = "another rank refused this step; its own error says why"


def meshes_of(groups: Sequence[Group]) -> list[Any]:
    """Return the device meshes of the parameters, in the same order on every rank."""
    meshes: list[Any] = []
    for p in (p for group in groups for p in group["params"]):
        if is_dtensor(p) and mesh_of(p) not in meshes:
            meshes.append(mesh_of(p))
    return meshes


def entries_on(mesh: Any, groups: Sequence[Group], parts: Sequence[Part]) -> list[Entry]:
    """Return what this rank is to do with each parameter on a mesh.

    Args:
        mesh: the device mesh.
        groups: all param groups of the optimizer.
        parts: the parts of them that have DTensors.
    """
    positions = {id(p): i for i, p in enumerate(p for group in groups for p in group["params"])}
    entries = []
    for _, _, group in parts:
        tracked = is_tracked(group)
        names = group.get("param_names") or [str(positions[id(p)]) for p in group["params"]]
        for name, p in zip(names, group["params"], strict=True):
            if mesh_of(p) == mesh:
                options = repr(plan_key(group)) if tracked else ""
                entries.append((name, tracked, tracked and p.grad is not None, options))
    return entries


def compare(entries: Sequence[Entry], mesh: Any, like: Tensor, refused: bool) -> None:
    """Compare what the ranks of a mesh are to step.

    Args:
        entries: of this rank.
        mesh: the device mesh.
        like: a float64 tensor on the device that the ranks' backend can send from.
        refused: this rank raises an error of its own.

    Raises:
        ValueError: the entries differ, or another rank refused the step; on every rank.
    """
    digest = hashlib.sha256(repr(list(entries)).encode()).digest()
    numbers = [int.from_bytes(digest[i : i + 6], "big") for i in (0, 6)]
    message = like.new_tensor([refused, *numbers, *(-n for n in numbers)])
    was_refused, *ends = all_reduce(message, mesh, largest=True).tolist()
    if was_refused:
        if not refused:
            raise ValueError(OTHER_REFUSED)
    elif ends[:2] != [-n for n in ends[2:]]:
        raise ValueError(difference(gather(list(entries), mesh)))


def difference(ranks: Sequence[Sequence[Entry]]) -> str:
    """Return the text of the error for ranks that are to step different tensors."""
    by_name = [{entry[0]: entry for entry in entries} for entries in ranks]
    for name in dict.fromkeys(entry[0] for entries in ranks for entry in entries):
        found = [entries.get(name, (name, False, False, "")) for entries in by_name]
        tracked, with_gradient = sum(e[1] for e in found), sum(e[2] for e in found)
        if tracked not in (0, len(ranks)):
            return f"parameter {name} is tracked on {tracked} of {len(ranks)} ranks"
        if with_gradient not in (0, len(ranks)):
            return (
                f"tracked parameter {name} has a gradient on {with_gradient} of {len(ranks)} ranks"
            )
        if len({entry[3] for entry in found}) > 1:
            return f"the options of parameter {name} differ between ranks"
    if len(set(map(tuple, ranks))) > 1:
        return "the order of the parameters differs between ranks"
    return (
        "some ranks have to measure the norms anew and others do not: replace the optimizer's "
        "state, or call refresh_distances(), on every rank"
    )


def any_rank(found_inf: Tensor, groups: Sequence[Group]) -> Tensor:
    """Return the maximum of ``found_inf`` over the ranks: one overflow skips all steps."""
    agreed = local(found_inf).detach().clone()
    for mesh in meshes_of(groups):
        all_reduce(agreed, mesh, largest=True)
    return agreed
