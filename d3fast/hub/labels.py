# SPDX-License-Identifier: Apache-2.0
"""Class names of samples, matched to the class names of a model.

Names are compared exactly, then without case, spaces, underscores and hyphens, then with the parts
of a name like "tench, Tinca tinca". Numbers and names like "LABEL_3" are positions of the model's
classes where no class has such a name. Nothing else is guessed: synonyms are for the user.
"""

import re
from collections.abc import Iterable, Sequence

from d3fast.io.untrusted import printable

_PLACEHOLDER = re.compile(r"(?:label[_ -]?)?(0|[1-9]\d{0,8})", re.ASCII | re.IGNORECASE)
_SHOWN = 5


def match_classes(
    given: Sequence[str], classes: Sequence[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return the position of every class of the samples among the model's classes, and notes.

    Args:
        given: names in the samples.
        classes: names of the model's outputs, in their order.

    Raises:
        ValueError: a name that the model lacks.

    Example:
        >>> match_classes(("Great white", "tabby"), ("tabby", "great_white"))[0]
        (1, 0)
        >>> match_classes(("0", "2"), ("bad", "fair", "good"))
        ((0, 2), ("The numbers of the samples are taken as positions of the model's classes.",))
    """
    exact = {name: position for position, name in enumerate(classes)}
    loose = _unambiguous((_plain(name), i) for i, name in enumerate(classes))
    parts = _unambiguous(
        (_plain(part), i) for i, name in enumerate(classes) for part in name.split(",")
    )
    found = [exact.get(name, loose.get(_plain(name), parts.get(_plain(name)))) for name in given]
    matched = tuple(position for position in found if position is not None)
    if len(matched) == len(given):
        pairs = zip(given, matched, strict=True)
        return matched, tuple(_inexact(n, classes[i]) for n, i in pairs if n not in exact)[:1]
    numbers = [_PLACEHOLDER.fullmatch(name) for name in given]
    positions = tuple(int(number[1]) for number in numbers if number)
    if len(positions) == len(given) and max(positions) < len(classes):
        return positions, (
            "The numbers of the samples are taken as positions of the model's classes.",
        )
    raise _unknown(
        [name for name, position in zip(given, found, strict=True) if position is None], classes
    )


def _plain(name: str) -> str:
    """Return a name without case, spaces, underscores and hyphens."""
    return re.sub(r"[\s_-]+", "", name.casefold())


def _unambiguous(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the position of every name that stands for one class."""
    found: dict[str, int | None] = {}
    for name, position in pairs:
        found[name] = position if found.get(name, position) == position else None
    return {name: position for name, position in found.items() if position is not None and name}


def _inexact(name: str, match: str) -> str:
    return (
        "Class names were compared without case, spaces and underscores: "
        f"'{printable(name, 80)}' is '{printable(match, 80)}'."
    )


def _unknown(names: Sequence[str], classes: Sequence[str]) -> ValueError:
    more = f" and {len(names) - 1} more classes of the samples" if len(names) > 1 else ""
    shown = ", ".join(printable(name, 40) for name in classes[:_SHOWN])
    dots = ", …" if len(classes) > _SHOWN else ""
    return ValueError(
        f"the model has no class '{printable(names[0], 80)}'{more}, it has {shown}{dots}: rename "
        "them, or name the model's classes in the order of its outputs (--classes FILE)"
    )
