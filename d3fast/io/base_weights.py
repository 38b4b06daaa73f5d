# SPDX-License-Identifier: Apache-2.0
"""Some weights of an untrusted file, by name: those of a public model that a suspect came from.

Unlike ``load_weights`` the file may hold more than was asked for, such as the head of another
task, which is not read.
"""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from d3fast.io.entries import TensorEntry
from d3fast.io.state_dicts import shared_prefix, state_dicts
from d3fast.io.untrusted import error_text, printable
from d3fast.io.weight_files import open_weights


def read_weights(path: str | Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Read the tensors of a weight file that have the names and shapes of given ones.

    The formats, keys and prefixes are those of ``load_weights``. No code of the file is run.

    Args:
        path: the file.
        wanted: tensors by name; the result has their shapes, dtypes and devices.

    Raises:
        ValueError: a damaged file; a name that is missing, a tensor of another shape or kind of
            dtype; NaN or inf.
        OSError: the file is missing or cannot be read.

    Example:
        >>> import tempfile
        >>> from safetensors.torch import save_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "base.safetensors")
        ...     save_file({"up.weight": torch.ones(1, 2), "head.weight": torch.zeros(9, 1)}, file)
        ...     read_weights(file, {"up.weight": torch.zeros(1, 2)})
        {'up.weight': tensor([[1., 1.]])}
    """
    path = Path(path)
    with open_weights(path) as held:
        entries = _entries(held, wanted, path)
        return {name: _read(name, entries[name], wanted[name], path) for name in wanted}


def _entries(held: Any, wanted: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Return what the file holds under the wanted names, of the likeliest place in it.

    A public encoder alone lacks the prefix that its weights have in a classifier, such as "bert.".
    """
    lacking, inside = set(wanted), shared_prefix(wanted)
    for _, found in state_dicts(held):
        for prefix, own in product(("", shared_prefix(found)), ("", inside)):
            places = {name: prefix + name.removeprefix(own) for name in wanted}
            named = {name: found[place] for name, place in places.items() if place in found}
            missing = wanted.keys() - named.keys()
            if not missing:
                return named
            lacking = min(lacking, missing, key=len)
    raise ValueError(f"{printable(path)} has no weight {min(lacking)!r} of the model")


def _read(name: str, stored: Any, like: Tensor, path: Path) -> Tensor:
    """Read one tensor; everything about it is checked."""
    shown = f"{printable(path)}: {name!r}"
    if not isinstance(stored, TensorEntry):
        raise ValueError(f"{shown} is no dense tensor")
    if stored.shape != like.shape:
        raise ValueError(
            f"{shown} has shape {printable(stored.shape, 100)}, the model's {tuple(like.shape)}"
        )
    if stored.dtype.is_floating_point != like.dtype.is_floating_point:
        raise ValueError(f"{shown} is {stored.dtype}, the model's {like.dtype}")
    try:
        value = stored.read()
    except Exception as error:  # parsers raise all kinds of exceptions on bad bytes
        raise ValueError(f"{shown} cannot be read: {error_text(error)}") from None
    if value.shape != like.shape:
        raise ValueError(f"{shown} differs from its description")
    value = value.to(like)
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{shown} holds NaN or inf")
    return value
