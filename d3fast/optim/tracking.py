# SPDX-License-Identifier: Apache-2.0
"""The choice of tracked parameters inside a param group, and the parts that a step takes.

The option ``track`` of a group is ``"all"``, or the positions of its tracked parameters as a tuple,
or ``None`` while no reference was taken. A group of which some parameters are tracked stays one
group for users, schedulers and checkpoints; a step takes it as two parts, the second with
``distance_weight=0, constraint=None``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from d3fast.optim.heads import head_by_name

Track = str | Callable[[str, Tensor], bool]

KINDS = ("head", "linear", "conv+linear")

# Options with which a group takes the plain step; constants, as plans compare options by identity.
_PLAIN: Mapping[str, Any] = {"distance_weight": 0.0, "constraint": None, "track": "all"}
_REPARAMETRIZED = re.compile(
    r"(^|\.)(parametrizations|lora_\w+|modules_to_save|original_module)\.|(^|\.)weight_(g|v|orig)$"
)
_EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe)\.weight$")


def split(group: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of a group in which all parameters take the same step, tracked ones first.

    A group that is not mixed is its own only part.
    """
    track = group.get("track")
    if track is None or track == "all":
        return [group]
    chosen = set(track)
    others = [i for i in range(len(group["params"])) if i not in chosen]
    parts = [({"track": "all"}, list(track)), (_PLAIN, others)]
    return [{**group, **options, **_members(group, at)} for options, at in parts if at]


def part_of(group: Mapping[str, Any], position: int) -> Mapping[str, Any]:
    """Return the part of a group that holds the parameter at one position alone."""
    track = group.get("track")
    plain = track is not None and track != "all" and position not in track
    return {**group, **(_PLAIN if plain else {"track": "all"}), **_members(group, [position])}


def _members(group: Mapping[str, Any], positions: Sequence[int]) -> dict[str, list[Any]]:
    names = ("params", "param_names") if "param_names" in group else ("params",)
    return {name: [group[name][i] for i in positions] for name in names}


def parts(groups: Sequence[Mapping[str, Any]]) -> list[tuple[int, Mapping[str, Any]]]:
    """Return the parts of all groups, each after the number of its group."""
    return [(number, part) for number, group in enumerate(groups) for part in split(group)]


def tracked_positions(group: Mapping[str, Any]) -> Sequence[int]:
    """Return the positions of the parameters that are tracked when the group is."""
    track = group.get("track")
    return range(len(group["params"])) if track is None or track == "all" else track


def tracked_params(group: Mapping[str, Any]) -> list[Tensor]:
    """Return the floating parameters that are tracked when the group is."""
    params = [group["params"][i] for i in tracked_positions(group)]
    return [p for p in params if p.is_floating_point()]


def search(track: str) -> Callable[[str], bool]:
    """Return the test whether a regular expression occurs in a parameter name.

    Raises:
        ValueError: an invalid regular expression.
    """
    try:
        pattern = re.compile(track)
    except re.error as error:
        raise ValueError(f"track={track!r} is no valid regular expression: {error}") from None
    return lambda name: pattern.search(name) is not None


def resolve_track(group: Mapping[str, Any]) -> str | tuple[int, ...] | None:
    """Return the option ``track`` of a group as ``None``, ``"all"`` or positions.

    Args:
        group: the group; ``track`` is ``None``, ``"all"``, positions, one of ``KINDS``, a regular
            expression or a callable ``(name, param) -> bool``.

    Raises:
        ValueError: another value; names are needed and missing; names and shapes do not say which
            parameters are meant.
    """
    track, params = group["track"], group["params"]
    if track is None or track == "all":
        return track
    if isinstance(track, (tuple, list)):
        if not all(isinstance(i, int) and 0 <= i < len(params) for i in track):
            raise ValueError(f"track must hold positions below {len(params)}, got {track!r}")
        return tuple(sorted(set(track)))
    if not callable(track) and not isinstance(track, str):
        raise ValueError(
            f"track must be None, 'all', one of {KINDS}, a regular expression, a callable or "
            f"positions, got {track!r}"
        )
    names = group.get("param_names")
    if names is None:
        raise ValueError(
            f"track={track!r} needs names: pass model.named_parameters(), or use "
            f"d3fast.param_groups(model, track={track!r})"
        )
    chosen = _by_name(track, dict(zip(names, params, strict=True)))
    return tuple(i for i, keep in enumerate(chosen) if keep)


def _by_name(track: Any, named: Mapping[str, Tensor]) -> Iterator[bool]:
    if callable(track):
        return (bool(track(name, p)) for name, p in named.items())
    if track not in KINDS:
        return map(search(track), named)
    hidden = next(filter(_REPARAMETRIZED.search, named), None)
    if hidden is not None:
        raise _ambiguous(track, f"{hidden} is a part of a reparametrized or adapted layer")
    if track == "head":
        layers = [n.rpartition(".")[0] for n, p in named.items() if _scores_classes(n, p)]
        head, reason = head_by_name(list(named), layers)
        if head is None:
            raise _ambiguous(track, reason)
        weight = f"{head}.weight" if head else "weight"
        return (name == weight for name in named)
    return iter([_is_layer_weight(track, name, p, named) for name, p in named.items()])


def _ambiguous(track: str, reason: str) -> ValueError:
    return ValueError(
        f"track={track!r} cannot be decided from parameter names: {reason}; use "
        f"d3fast.param_groups(model, track={track!r}), which reads the modules"
    )


def _scores_classes(name: str, p: Tensor) -> bool:
    """Return whether this is the weight of a linear layer or of a 1x1 convolution, by its shape."""
    is_weight = name.rpartition(".")[2] == "weight" and p.dim() >= 2
    return is_weight and not _EMBEDDING.search(name) and all(n == 1 for n in p.shape[2:])


def _is_layer_weight(track: str, name: str, p: Tensor, named: Mapping[str, Tensor]) -> bool:
    if name.rpartition(".")[2] != "weight" or p.dim() < 2:
        return False
    if p.dim() > 2:
        return track == "conv+linear"
    if f"{name.removesuffix('weight')}bias" in named:  # an embedding has none
        return True
    if _EMBEDDING.search(name):
        return False
    raise _ambiguous(track, f"{name} without a bias may be a linear layer or an embedding")
