# SPDX-License-Identifier: Apache-2.0
"""Number of classes and channels of an architecture, from the shapes in a weight file.

The architecture is built on the meta device with its usual sizes, without memory for weights. Its
head is the weight whose first dimension is the usual number of classes and another in the file; its
first layer the one whose second dimension is the usual number of channels and another in the file.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from d3fast.io.checkpoints import stored_shapes

Build: TypeAlias = Callable[[int, int], nn.Module]  # of classes and channels
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


def built_on_meta(build: Build, classes: int, channels: int) -> nn.Module:
    """Return a model without values; warnings of its library are dropped."""
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        return build(classes, channels)


def shapes_of(model: nn.Module) -> Shapes:
    """Return the shapes of a model's weights by name."""
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def other_sizes(own: Shapes, stored: Shapes, classes: int, channels: int) -> tuple[int, int]:
    """Return the numbers of classes and channels that make a model's shapes those of a file.

    Args:
        own: shapes of the model with ``classes`` and ``channels``.
        stored: shapes in the file under the same names.
        classes: usual number of classes.
        channels: usual number of channels.

    Raises:
        LookupError: other shapes differ too.

    Example:
        >>> own = {"conv": (8, 3, 3, 3), "fc.weight": (1000, 8), "fc.bias": (1000,)}
        >>> stored = {"conv": (8, 1, 3, 3), "fc.weight": (5, 8), "fc.bias": (5,)}
        >>> other_sizes(own, stored, 1000, 3)
        (5, 1)
    """
    heads, firsts = {classes}, {channels}
    for name, there in stored.items():
        here = own[name]
        if here == there:
            continue
        if here[:1] == (classes,) and here[1:] == there[1:]:
            heads.add(there[0])
        elif here[1:2] == (channels,) and (here[0], *here[2:]) == (there[:1] + there[2:]):
            firsts.add(there[1])
        else:
            raise LookupError(f"{name!r} has shape {there} in the file, {here} in the model")
    found = [sorted(sizes - {usual}) for sizes, usual in ((heads, classes), (firsts, channels))]
    if max(map(len, found)) > 1:
        raise LookupError(f"the file has heads or first layers of several sizes: {found}")
    return (found[0] or [classes])[0], (found[1] or [channels])[0]


def sizes_in_file(build: Build, path: Path, classes: int, channels: int) -> tuple[int, int]:
    """Return the numbers of classes and channels with which an architecture fits a file.

    Args:
        build: makes the architecture.
        path: the weight file.
        classes: usual number of classes.
        channels: usual number of channels.

    Raises:
        ValueError: names that are not the architecture's, or a file that cannot be read.
        LookupError: other shapes than those of head and first layer differ.
        OSError: the file is missing or cannot be read.
    """
    model = built_on_meta(build, classes, channels)
    return other_sizes(shapes_of(model), stored_shapes(model, path), classes, channels)
