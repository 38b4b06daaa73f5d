# SPDX-License-Identifier: Apache-2.0
"""Where a repair begins: blocks and tracked weights that leave the suspect before the first step.

Without a base model they begin at random weights of the norm that they had. Where the public model
is known that the suspect was trained from, they begin there: trained on far more data than the
defender has, and never shown the trigger. The reference theta_0 stays the suspect.
"""

import re

import torch
from torch import Tensor, nn

from d3fast.detox.config import BASE, D3Config
from d3fast.io.base_weights import read_weights
from d3fast.optim import param_groups
from d3fast.optim.base import D3Optimizer
from d3fast.optim.blocks import find_blocks, restart_blocks, restart_names
from d3fast.runtime.seeding import generator


def base_names(model: nn.Module, restart: int | str) -> list[str]:
    """Return the names of the parameters and buffers that a restart takes from a base model.

    They are all floating-point tensors of the blocks, one-dimensional ones included: a scale that
    the attacker trained does not fit the base model's convolutions.

    Args:
        model: any module.
        restart: number of last blocks, or a regular expression searched for in names.

    Raises:
        ValueError: see ``d3fast.optim.blocks.restart_names``.

    Example:
        >>> from d3fast.models import preact_resnet_tiny
        >>> base_names(preact_resnet_tiny(10, 1), 1)[:2]
        ['blocks.2.norm1.weight', 'blocks.2.norm1.bias']
    """
    if not restart_names(model, restart):
        return []
    if isinstance(restart, str):
        pattern = re.compile(restart)
    else:
        last = "|".join(re.escape(name) for name, _ in find_blocks(model)[-restart:])
        pattern = re.compile(rf"^({last})\.")
    return [
        name
        for name, value in model.state_dict().items()
        if isinstance(value, Tensor) and value.is_floating_point() and pattern.search(name)
    ]


@torch.no_grad()
def move_to_start(model: nn.Module, optimizer: D3Optimizer, config: D3Config) -> None:
    """Restart blocks and set the warm start of the tracked weights, in place.

    Args:
        model: at theta_0.
        optimizer: holds theta_0 as the reference of the tracked weights.
        config: ``restart``, ``base``, ``warm_start``, ``track`` and ``seed``.

    Raises:
        ValueError: blocks or weights that the model lacks; a base that lacks a weight or has it in
            another shape.
        OSError: a base that cannot be read.
    """
    if config.base is None:
        restart_blocks(model, config.restart, generator(config.seed, "restart"))
    else:
        names = base_names(model, config.restart)
        if config.warm_start == BASE:
            names += param_groups(model, track=config.track)[0]["param_names"]
        state = model.state_dict()
        values = read_weights(config.base, {name: state[name] for name in names})
        for name, value in values.items():
            state[name].copy_(value)
    if config.warm_start != BASE:
        optimizer.warm_start(config.warm_start, generator=generator(config.seed, "warm start"))
