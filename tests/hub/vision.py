# SPDX-License-Identifier: Apache-2.0
"""A stand-in for torchvision, which cannot be installed beside every torch.

It has the functions that d3fast calls, and the names that timm imports, with small models under the
weight names of torchvision.
"""

import enum
import sys
import types
from functools import partial

import pytest
from torch import nn


class Interpolation(enum.Enum):
    BICUBIC = "bicubic"


class ImageClassification:
    def __init__(self, crop_size, resize_size=256):
        self.crop_size, self.resize_size = [crop_size], [resize_size]
        self.interpolation = Interpolation.BICUBIC
        self.mean, self.std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class SemanticSegmentation:
    pass


class Weights(enum.Enum):
    IMAGENET1K_V1 = partial(ImageClassification, 224)
    IMAGENET1K_V2 = partial(ImageClassification, 224, 232)
    DEFAULT = IMAGENET1K_V2

    def transforms(self):
        return self.value()


class OtherWeights(enum.Enum):
    DEFAULT = partial(SemanticSegmentation)

    def transforms(self):
        return self.value()


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, images):
        return images + self.conv2(self.conv1(images))


class SmallResNet(nn.Module):
    def __init__(self, blocks, num_classes=1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 7, stride=4)
        self.layer4 = nn.Sequential(*(Block() for _ in range(blocks)))
        self.fc = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.fc(self.layer4(self.conv1(images)).mean((2, 3)))


_MODELS = {"resnet18": partial(SmallResNet, 1), "resnet34": partial(SmallResNet, 2)}


def get_model(name, weights=None, num_classes=1000):
    if name not in _MODELS:
        raise ValueError(f"Unknown model {name}")
    return _MODELS[name](num_classes=num_classes)


def get_model_weights(name):
    if name == "fcn_resnet50":
        return OtherWeights
    if name not in _MODELS:
        raise ValueError(f"Unknown model {name}")
    return Weights


def _module(name, **content):
    module = types.ModuleType(name)
    module.__dict__.update(content)
    return module


@pytest.fixture
def torchvision(monkeypatch):
    """Put the stand-in in the place of torchvision."""
    models = _module("torchvision.models", get_model=get_model, get_model_weights=get_model_weights)
    modules = {
        "torchvision": _module("torchvision", models=models, __version__="0", __path__=[]),
        "torchvision.models": models,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return modules["torchvision"]
