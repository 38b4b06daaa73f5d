# SPDX-License-Identifier: Apache-2.0
"""Models by name.

Every entry is a function ``(num_classes, in_channels) -> nn.Module``. Its model takes images in
[0, 1], has its classification head at ``model.head``, and ``model.features(images)`` returns the
input of the head. To add one, add a file with such a function and a row to ``MODELS``.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from d3fast.models.preact_resnet import (
    preact_resnet18,
    preact_resnet_narrow,
    preact_resnet_tiny,
)
from d3fast.models.vgg import vgg19_bn
from d3fast.models.vit import vit_b_16, vit_tiny

_FACTORIES: tuple[Callable[[int, int], nn.Module], ...] = (
    preact_resnet_tiny,
    preact_resnet_narrow,
    preact_resnet18,
    vgg19_bn,
    vit_tiny,
    vit_b_16,
)

MODELS: Mapping[str, Callable[[int, int], nn.Module]] = MappingProxyType(
    {factory.__name__: factory for factory in _FACTORIES}
)
