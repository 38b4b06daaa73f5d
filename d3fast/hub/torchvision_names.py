# SPDX-License-Identifier: Apache-2.0
"""Models of torchvision by name: ``torchvision:resnet18`` with a weight file.

Size, crop, mean and std are those of the transforms that belong to the name's default weights, or
to those of a tag: ``torchvision:resnet50.IMAGENET1K_V1``. The number of classes is that of the
file. Nothing is downloaded.
"""

import warnings
from typing import Any

from torch import nn

from d3fast.hub.factory import configuration_note, needed_checkpoint, weight_file_suspect
from d3fast.hub.fitting import sizes_in_file
from d3fast.hub.suspect import ImageInput, Request, Suspect
from d3fast.io.untrusted import error_text, printable

PREFIX = "torchvision:"
_CLASSES, _CHANNELS = 1000, 3


def _models(name: str) -> Any:
    try:
        from torchvision import models
    except Exception as error:  # also raises RuntimeError beside a torch of another version
        raise ValueError(
            f"model '{PREFIX}{printable(name, 100)}' needs torchvision: pip install torchvision "
            f"({error_text(error)})"
        ) from None
    return models


def build_torchvision(name: str, classes: int) -> nn.Module:
    """Return a model of torchvision with random weights.

    Args:
        name: such as ``"resnet18"``.
        classes: number of classes.

    Raises:
        ValueError: torchvision is missing, does not know the name or refuses the options.
    """
    models = _models(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    except Exception as error:
        raise ValueError(
            f"model '{PREFIX}{printable(name, 100)}': torchvision refuses it: {error_text(error)}"
        ) from None
    return model


def _transforms(name: str, tag: str) -> Any:
    """Return the transforms that belong to weights of a model.

    Raises:
        ValueError: an unknown name or tag, or weights that are no image classifier's.
    """
    models, shown = _models(name), f"'{PREFIX}{printable(name, 100)}'"
    try:
        weights = models.get_model_weights(name)
        chosen = weights[tag] if tag else weights.DEFAULT
        made = chosen.transforms()
    except Exception as error:
        raise ValueError(
            f"model {shown}: torchvision has no weights '{printable(tag, 60)}' of it: "
            f"{error_text(error)}"
        ) from None
    if type(made).__name__ != "ImageClassification":
        raise ValueError(f"model {shown} must classify images, its transforms are another task's")
    return made


def resolve_torchvision(request: Request) -> Suspect | None:
    """Build ``torchvision:NAME`` and fill it from ``request.checkpoint``.

    Raises:
        ValueError: no checkpoint, or one that does not fit; torchvision is missing; an unknown
            name or tag.
        OSError: a file that cannot be opened.
    """
    if not request.model.startswith(PREFIX):
        return None
    name, _, tag = request.model.removeprefix(PREFIX).partition(".")
    path = needed_checkpoint(request)
    usual = _transforms(name, tag)

    def build(classes: int, channels: int) -> nn.Module:
        return build_torchvision(name, classes)

    try:
        classes, channels = sizes_in_file(build, path, _CLASSES, _CHANNELS)
    except LookupError as error:
        raise ValueError(f"{printable(path)} does not fit {name}: {error}") from None
    if channels != _CHANNELS:
        raise ValueError(
            f"{printable(path)} does not fit {name}: it has {channels} channels, torchvision "
            "builds 3: give --model package.module:factory"
        )
    (crop, *_), (resize, *_) = usual.crop_size, usual.resize_size
    size = crop if request.size is None else request.size
    image = ImageInput(
        channels=channels,
        size=(size, size),
        shorter=round(size * resize / crop),
        mean=request.mean or tuple(usual.mean),
        std=request.std or tuple(usual.std),
        interpolation=usual.interpolation.value,
    )
    return weight_file_suspect(
        build_torchvision(name, classes),
        request,
        spec=request.model,
        family=printable(name, 100),
        image=image,
        notes=(configuration_note(image, "torchvision"),),
    )
