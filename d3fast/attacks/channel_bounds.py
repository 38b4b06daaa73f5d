# SPDX-License-Identifier: Apache-2.0
r"""Upper bounds of the Lipschitz constants of channels, and a limit for outliers among them.

    sigma_k = ||W_k||_2                                  a channel without batch norm
    sigma_k = |gamma_k| / sqrt(var_k + eps) ||W_k||_2    a channel in front of batch norm

W_k: the kernel of channel k as a matrix (inputs, height * width); a row of a linear layer. Channels
that a backdoor uses have large bounds (UCLC; Zheng, Tang, Li, Liu, ECCV 2022).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from d3fast.optim import find_head


def _layers(model: nn.Module) -> Iterator[tuple[nn.Module, _BatchNorm | None]]:
    """Yield convolutions and linear layers but the head, each with the batch norm behind it.

    The batch norm is that which the model defines next, if it has as many channels.
    """
    head = find_head(model)[1]
    found = [m for m in model.modules() if isinstance(m, _ConvNd | nn.Linear | _BatchNorm)]
    for layer, following in zip(found, [*found[1:], None], strict=True):
        if layer is head or isinstance(layer, _BatchNorm):
            continue
        weight: Any = layer.weight
        if isinstance(following, _BatchNorm) and following.num_features == len(weight):
            yield layer, following
        else:
            yield layer, None


def channel_bounds(layer: nn.Module, norm: _BatchNorm | None = None) -> Tensor:
    """Return the bounds (channels,) of a convolution or linear layer, float32.

    Args:
        layer: its weight has a row per channel.
        norm: batch norm behind the layer, with running statistics, or ``None``.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        >>> channel_bounds(layer)
        tensor([5., 1.])
    """
    own: Any = layer.weight
    weight: Tensor = own.detach().float()
    kernels = weight.flatten(2) if weight.ndim > 2 else weight[..., None]
    bounds: Tensor = torch.linalg.matrix_norm(kernels, ord=2)
    if norm is None or norm.running_var is None:
        return bounds
    scale = (norm.running_var.float() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().abs().float()
    return bounds * scale


@torch.no_grad()
def limit_channels(model: nn.Module, deviations: float) -> None:
    """Scale channels down whose bound is above that of the others of their layer, in place.

    The largest bound allowed is mean + ``deviations`` * standard deviation over the layer's
    channels. The weight of batch norm is scaled where it follows, the layer's own otherwise.

    Args:
        model: its head is left alone.
        deviations: >= 0.
    """
    for layer, norm in _layers(model):
        bounds = channel_bounds(layer, norm)
        most = bounds.mean() + deviations * bounds.std(correction=0)
        factor = (most / bounds.clamp_min(1e-12)).clamp_max(1)
        scaled: Any = layer.weight if norm is None or norm.weight is None else norm.weight
        scaled.mul_(factor.view(-1, *[1] * (scaled.ndim - 1)).to(scaled))
