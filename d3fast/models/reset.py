# SPDX-License-Identifier: Apache-2.0
"""``reinitialized``: a copy of any model with random weights, for models that no factory builds."""

import copy

import torch
from torch import Tensor, nn

from d3fast.runtime.seeding import global_seed


def reinitialized(model: nn.Module, seed: int) -> nn.Module:
    """Return a copy of a model with random weights.

    Layers are reset by their own ``reset_parameters``. Other parameters (class tokens, position
    embeddings, layer scales) have no rule: one of two or more dimensions is drawn from the normal
    distribution with its own mean and standard deviation, a vector or a scalar becomes its mean.

    Args:
        model: is not changed.
        seed: of the weights.

    Example:
        >>> model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        >>> one, two = reinitialized(model, 0), reinitialized(model, 0)
        >>> torch.equal(one[0].weight, two[0].weight), torch.equal(one[0].weight, model[0].weight)
        (True, False)
    """
    fresh = copy.deepcopy(model)
    with global_seed(seed), torch.no_grad():
        for module in fresh.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
                continue
            for param in module.parameters(recurse=False):
                _redraw(param)
    return fresh


def _redraw(param: Tensor) -> None:
    if not param.is_floating_point() or param.numel() == 0:
        return
    if param.ndim < 2:
        param.fill_(param.mean())
    else:
        param.normal_(float(param.mean()), float(param.std(correction=0)))
