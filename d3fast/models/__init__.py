# SPDX-License-Identifier: Apache-2.0
"""Models by name or by factory, and their weights.

``make_model`` builds a model from a name of ``MODELS`` or from ``package.module:factory``;
``load_weights`` fills it from an untrusted file.
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
