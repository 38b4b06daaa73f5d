# SPDX-License-Identifier: Apache-2.0
"""Models: those with a name, those of a user's own, and the weights for either.

``make_model`` builds one from a name of ``MODELS`` or from ``package.module:factory``;
``load_weights`` fills it from a file that is not trusted.
"""

from d3fast.io.checkpoints import load_weights
from d3fast.models.factory import make_model
from d3fast.models.preact_resnet import (
    PreActResNet,
    preact_resnet18,
    preact_resnet_narrow,
    preact_resnet_tiny,
)
from d3fast.models.registry import MODELS
from d3fast.models.vgg import VGG, vgg19_bn
from d3fast.models.vit import VisionTransformer, vit_b_16, vit_tiny

__all__ = [
    "MODELS",
    "VGG",
    "PreActResNet",
    "VisionTransformer",
    "load_weights",
    "make_model",
    "preact_resnet18",
    "preact_resnet_narrow",
    "preact_resnet_tiny",
    "vgg19_bn",
    "vit_b_16",
    "vit_tiny",
]
