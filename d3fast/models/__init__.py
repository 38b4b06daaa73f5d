# SPDX-License-Identifier: Apache-2.0
"""Models for trials and tests, in one registry.

Every entry is a function ``(num_classes, in_channels) -> nn.Module`` whose result takes images
in [0, 1] and has its classification head at ``model.head``. To add one, add a file with such a
function and a row to ``MODELS``.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from d3fast.models.preact_resnet import (
    PreActResNet,
    preact_resnet18,
    preact_resnet_narrow,
    preact_resnet_tiny,
)

MODELS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {f.__name__: f for f in (preact_resnet_tiny, preact_resnet_narrow, preact_resnet18)}
)

__all__ = [
    "MODELS",
    "PreActResNet",
    "preact_resnet18",
    "preact_resnet_narrow",
    "preact_resnet_tiny",
]
