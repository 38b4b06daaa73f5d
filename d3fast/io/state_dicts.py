# SPDX-License-Identifier: Apache-2.0
"""Where the weights of a model lie in a file: under which keys, and with which prefix.

Training scripts store weights in dictionaries (``state_dict``, ``model``, …), and wrappers add a
prefix to every name (``module.`` of ``DataParallel``, ``_orig_mod.`` of ``torch.compile``,
``model.`` of a Lightning module). ``find_weights`` accepts a place only if all names of the model
are there, and none else, so it guesses nothing. Only names are compared; no tensor is read.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from d3fast.io.entries import OtherEntry, TensorEntry

Entries: TypeAlias = dict[str, TensorEntry | OtherEntry]

# In order of preference. Evaluation scripts of timm prefer the average over training (EMA) too.
EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict")
_KEYS = (*EMA_KEYS, "state_dict", "model_state_dict", "model", "net")
# Names that wrappers of submodules put between the parts of a name.
_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")
_LAST = "\U0010ffff"  # sorts behind every name with the same beginning


@dataclass(frozen=True)
class Place:
    """Where weights lie in a file.

    Attributes:
        keys: of the dictionaries around them, outermost first.
        prefix: of their names, with the last dot.
        names: the name in the file of each name without prefix.
        beside: number of tensors in the same dictionary under other prefixes.
    """

    keys: tuple[str, ...]
    prefix: str
    names: Mapping[str, str]
    beside: int

    @property
    def averaged(self) -> bool:
        """The weights are an average over training."""
        return any(key in EMA_KEYS for key in self.keys)


def state_dicts(held: Any) -> Iterator[tuple[tuple[str, ...], Entries]]:
    """Yield the keys and the tensors of every dictionary that may hold weights, likeliest first.

    Args:
        held: contents of a file, as ``open_weights`` yields them.

    Example:
        >>> held = {"epoch": 3, "state_dict": {"weight": OtherEntry("a sparse tensor")}}
        >>> [keys for keys, _ in state_dicts(held)]
        [('state_dict',), ()]
    """
    seen: set[int] = set()  # a file may nest them without end

    def walk(level: Any, keys: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Entries]]:
        if not isinstance(level, Mapping) or id(level) in seen:
            return
        seen.add(id(level))
        for key in _KEYS:
            yield from walk(level.get(key), (*keys, key))
        yield (
            keys,
            {
                name: value
                for name, value in level.items()
                if isinstance(name, str) and isinstance(value, TensorEntry | OtherEntry)
            },
        )

    yield from walk(held, ())


def shared_prefix(names: Mapping[str, Any] | Sequence[str]) -> str:
    """Return the longest prefix of whole parts that all names have, with its last dot, or ``""``.

    The last part of a name is never in it.

    Example:
        >>> shared_prefix(["module.net.0.weight", "module.net.1.weight"])
        'module.net.'
        >>> shared_prefix(["0.weight", "1.weight"])
        ''
    """
    if not names:
        return ""
    first, last = min(names), max(names)  # all others lie between them
    parts = []
    for one, other in zip(first.split(".")[:-1], last.split(".")[:-1], strict=False):
        if one != other:
            break
        parts.append(f"{one}.")
    return "".join(parts)


def find_weights(held: Any, groups: Sequence[Sequence[str]], optional: Sequence[str]) -> Place:
    """Return the place whose names are those of a model.

    Args:
        held: contents of a file, as ``open_weights`` yields them.
        groups: the model's names; of the names in a group, tied weights, one is enough.
        optional: names of the model that a file may lack.

    Raises:
        LookupError: no place has the model's names.
        ValueError: several prefixes of one dictionary have them.
    """
    wanted = [tuple(group) for group in groups]
    own = {name for group in wanted for name in group} | set(optional)
    for keys, entries in state_dicts(held):
        plain = {_unwrapped(name): name for name in entries}
        for names in ({name: name for name in entries}, plain):
            if len(names) == len(entries) and (found := _prefixes(names, wanted, own)):
                if len(found) > 1:
                    shown = " and ".join(map(repr, found))
                    raise ValueError(f"the names of the model are there twice: under {shown}")
                (prefix,) = found
                chosen = {n.removeprefix(prefix): names[n] for n in names if n.startswith(prefix)}
                return Place(keys, prefix, chosen, len(entries) - len(chosen))
    raise LookupError("no dictionary has the names of the model")


def _unwrapped(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _prefixes(
    names: Mapping[str, str], groups: Sequence[tuple[str, ...]], own: set[str]
) -> list[str]:
    """Return the prefixes under which the names are those of the model, at most two.

    The empty prefix excludes others: then all names are the model's.
    """
    if not groups:
        return []
    found, in_order = [], sorted(names)
    for prefix in sorted(_candidates(names, groups[0]), key=lambda found: (len(found), found)):
        if all(any(prefix + name in names for name in group) for group in groups):
            inside = bisect_left(in_order, f"{prefix}{_LAST}") - bisect_left(in_order, prefix)
            if inside == sum(prefix + name in names for name in own):
                found.append(prefix)
                if not prefix or len(found) == 2:
                    break
    return found


def _candidates(names: Mapping[str, str], group: tuple[str, ...]) -> set[str]:
    """Return what stands before a name of the group, wherever one ends a name of the file."""
    ends = tuple(f".{name}" for name in group)
    before = {"" for name in group if name in names}
    for name in names:
        if name.endswith(ends):
            before |= {name[: len(name) - len(end) + 1] for end in ends if name.endswith(end)}
    return before
