# SPDX-License-Identifier: Apache-2.0
"""Blocks of a network from input to output, and their restart from random weights.

A block is the repeated unit of an architecture: a residual block, a transformer layer. D3 on the
head alone leaves the layers below it as the attacker trained them; a restart replaces the weights
of the last blocks by random ones of the same norm before the first step, and the repair trains
them again. ``find_blocks`` sees modules and their names, never a forward pass, as ``find_head``
does for the head.
"""

import re
from collections.abc import Iterator

import torch
from torch import nn

from d3fast.optim.heads import find_head
from d3fast.optim.warm_start import random

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

Named = tuple[str, nn.Module]


def _children(module: nn.Module, name: str) -> list[Named]:
    """Return the children with parameters, by qualified name."""
    return [
        (f"{name}.{child}" if name else child, m)
        for child, m in module.named_children()
        if next(m.parameters(), None) is not None
    ]


def _weights(module: nn.Module) -> int:
    return sum(p.ndim > 1 for p in module.parameters())


def _repeats(module: nn.Module) -> bool:
    """Return True where half of the parameters lie in one list of units of one class.

    That is a stage: the units that it repeats are the blocks, not the stage itself. A unit has two
    weights at least; a convolution with its normalisation is part of a block.
    """
    size = sum(p.numel() for p in module.parameters())
    for inner in module.modules():
        parts = [m for _, m in _children(inner, "")]
        same = len({type(m) for m in parts}) == 1 and len(parts) > 1
        if isinstance(inner, _CONTAINERS) and same and _weights(parts[0]) > 1:
            return 2 * sum(p.numel() for m in parts for p in m.parameters()) > size
    return False


def _walk(module: nn.Module, name: str) -> Iterator[Named]:
    for child, m in _children(module, name):
        composite = bool(_children(m, child))
        plain = type(m) in _CONTAINERS or not isinstance(module, _CONTAINERS)
        if composite and not plain and not _repeats(m):
            yield child, m
        elif composite:
            yield from _walk(m, child)


def find_blocks(model: nn.Module) -> list[Named]:
    """Return the blocks of a model, from its input to its output.

    They are the composite modules inside ``Sequential``, ``ModuleList`` and ``ModuleDict``; where
    such a module repeats units of its own (a stage), these units. A network without any (VGG, an
    MLP) has its linear and convolution layers for blocks. The head and what contains it is none.

    Args:
        model: any module with a head, see ``find_head``.

    Returns:
        Qualified names and modules, in the order of registration.

    Raises:
        ValueError: the head cannot be found.

    Example:
        >>> from d3fast.models import preact_resnet_tiny
        >>> [name for name, _ in find_blocks(preact_resnet_tiny(10, 1))]
        ['blocks.0', 'blocks.1', 'blocks.2']
    """
    head = find_head(model)[1]
    blocks = [(name, m) for name, m in _walk(model, "") if head not in set(m.modules())]
    if len(blocks) > 1:
        return blocks
    return [(name, m) for name, m in model.named_modules() if isinstance(m, _LAYERS) and m != head]


def restart_depths(model: nn.Module, share: float = 2 / 3) -> tuple[int, ...]:
    """Return the numbers of last blocks that an automatic restart tries, from most to none.

    The first is a share of the blocks, every next one half of the previous, rounded down.

    Args:
        model: any module with a head.
        share: of the blocks, 0..1.

    Raises:
        ValueError: the head cannot be found.

    Example:
        >>> from d3fast.models import preact_resnet18
        >>> restart_depths(preact_resnet18(10, 3))
        (5, 2, 1, 0)
    """
    depths = [round(share * len(find_blocks(model)))]
    while depths[-1]:
        depths.append(depths[-1] // 2)
    return tuple(depths)


def restart_names(model: nn.Module, restart: int | str) -> list[str]:
    """Return the names of the parameters that a restart replaces.

    Only tensors of two or more dimensions are replaced: biases and normalisation layers keep
    their values, and so do embeddings.

    Args:
        model: any module.
        restart: number of last blocks, with the layers between them and the head (a last
            convolution, a pooler); or a regular expression searched for in parameter names.

    Raises:
        ValueError: more blocks than the model has, an expression that is invalid or selects no
            such parameter.
    """
    embeddings = {
        id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()
    }
    weights = {
        name: p for name, p in model.named_parameters() if p.ndim > 1 and id(p) not in embeddings
    }
    if isinstance(restart, str):
        try:
            pattern = re.compile(restart)
        except re.error as error:
            raise ValueError(
                f"restart={restart!r} is no valid regular expression: {error}"
            ) from None
        chosen = [name for name in weights if pattern.search(name)]
        if not chosen:
            raise ValueError(f"restart={restart!r} selects no weight of the model")
        return chosen
    if restart == 0:
        return []
    blocks = find_blocks(model)
    if restart > len(blocks):
        raise ValueError(f"restart must be <= {len(blocks)}, the number of blocks, got {restart}")
    head = {id(p) for p in find_head(model)[1].parameters()}
    last = {id(p) for _, block in blocks[-restart:] for p in block.parameters()}
    inside = {id(p) for _, block in blocks for p in block.parameters()}
    behind = False
    for p in weights.values():
        behind = behind or id(p) in last
        if behind and id(p) not in inside | head:
            last.add(id(p))
    return [name for name, p in weights.items() if id(p) in last]


@torch.no_grad()
def restart_blocks(
    model: nn.Module, restart: int | str, generator: torch.Generator | None = None
) -> list[str]:
    """Replace weights by U(-1/2, 1/2) rescaled to the norm that each tensor had.

    Args:
        model: changed in place.
        restart: see ``restart_names``.
        generator: source of randomness; torch's default one if ``None``.

    Returns:
        The names of the replaced parameters.

    Raises:
        ValueError: see ``restart_names``.

    Example:
        >>> from d3fast.models import preact_resnet_tiny
        >>> restart_blocks(preact_resnet_tiny(10, 1), 1)[0]
        'blocks.2.conv1.weight'
    """
    names = restart_names(model, restart)
    params = dict(model.named_parameters())
    for name in names:
        params[name].copy_(random(params[name].detach(), generator))
    return names
