# SPDX-License-Identifier: Apache-2.0
"""Models of timm by name: ``timm:resnet18.a1_in1k`` with a weight file.

Size, crop, mean and std are those of the name's own configuration; classes and channels are those
of the file. Nothing is downloaded.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from d3fast.hub.factory import configuration_note, needed_checkpoint, weight_file_suspect
from d3fast.hub.fitting import sizes_in_file
from d3fast.hub.suspect import ImageInput, Request, Suspect
from d3fast.io.checkpoints import stored_shapes
from d3fast.io.images import INTERPOLATIONS
from d3fast.io.untrusted import error_text, printable

PREFIX = "timm:"


def build_timm(name: str, **options: Any) -> nn.Module:
    """Return a model of timm with random weights.

    Args:
        name: such as ``"resnet18"`` or ``"resnet18.a1_in1k"``.
        options: of ``timm.create_model``.

    Raises:
        ValueError: timm is missing, does not know the name or refuses the options.
    """
    try:
        from timm import create_model
    except ImportError as error:
        raise ValueError(
            f"model '{PREFIX}{printable(name, 100)}' needs timm: pip install timm "
            f"({error_text(error)})"
        ) from None
    if ":" in name or "/" in name:  # timm would fetch these from a hub
        raise ValueError(f"model '{PREFIX}{printable(name, 100)}' is no name of timm")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return create_model(name, pretrained=False, **options)
    except Exception as error:
        raise ValueError(
            f"model '{PREFIX}{printable(name, 100)}': timm refuses it: {error_text(error)}"
        ) from None


def _options(request: Request, probe: Any, path: Path) -> dict[str, Any]:
    """Return the option for images of another size, for a model that is built for one size."""
    usual = probe.pretrained_cfg
    if not usual.get("fixed_input_size"):
        return {}
    size = _size_in_file(probe, path) if request.size is None else request.size
    return {} if size in (None, usual["input_size"][1]) else {"img_size": size}


def _size_in_file(probe: Any, path: Path) -> int | None:
    """Return the image size that the position embeddings of a file are for, if they tell."""
    stored, own = stored_shapes(probe, path).get("pos_embed"), getattr(probe, "pos_embed", None)
    patch = getattr(getattr(probe, "patch_embed", None), "patch_size", None)
    if stored is None or own is None or patch is None or len(stored) != 3:
        return None
    side: int = probe.pretrained_cfg["input_size"][1] // patch[0]
    others = own.shape[1] - side**2  # class and distillation tokens
    grid = math.isqrt(max(0, stored[1] - others))
    return grid * patch[0] if grid and grid**2 + others == stored[1] else None


def _fitted(
    name: str, path: Path, usual: Mapping[str, Any], options: dict[str, Any]
) -> tuple[nn.Module, int]:
    """Return the model with the numbers of classes and channels of the file, and the latter."""

    def build(classes: int, channels: int) -> nn.Module:
        return build_timm(name, num_classes=classes, in_chans=channels, **options)

    try:
        sizes = sizes_in_file(build, path, usual["num_classes"] or 1000, usual["input_size"][0])
    except LookupError as error:
        raise ValueError(f"{printable(path)} does not fit {name}: {error}") from None
    return build(*sizes), sizes[1]


def one_per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return mean or std for so many channels: as given, or their mean for each channel.

    Example:
        >>> one_per_channel((0.25, 0.5, 0.75), 1)
        (0.5,)
    """
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _image(
    request: Request, model: nn.Module, channels: int, options: dict[str, Any]
) -> ImageInput:
    """Return what the images look like, according to the request, else to timm."""
    from timm.data import resolve_model_data_config

    usual = resolve_model_data_config(model)
    given = request.size or options.get("img_size")
    size = (given, given) if given else tuple(usual["input_size"][1:])
    squash = usual["crop_mode"] == "squash"
    return ImageInput(
        channels=channels,
        size=size,
        shorter=None if squash else math.floor(min(size) / usual["crop_pct"]),
        mean=request.mean or one_per_channel(tuple(usual["mean"]), channels),
        std=request.std or one_per_channel(tuple(usual["std"]), channels),
        interpolation=usual["interpolation"]
        if usual["interpolation"] in INTERPOLATIONS
        else "bicubic",
    )


def resolve_timm(request: Request) -> Suspect | None:
    """Build ``timm:NAME`` and fill it from ``request.checkpoint``.

    Raises:
        ValueError: no checkpoint, or one that does not fit; timm is missing; an unknown name.
        OSError: a file that cannot be opened.
    """
    if not request.model.startswith(PREFIX):
        return None
    name = request.model.removeprefix(PREFIX)
    path = needed_checkpoint(request)
    with torch.device("meta"):
        probe: Any = build_timm(name)
    usual: Mapping[str, Any] = probe.pretrained_cfg
    options = _options(request, probe, path)
    model, channels = _fitted(name, path, usual, options)
    image = _image(request, model, channels, options)
    return weight_file_suspect(
        model,
        request,
        spec=request.model,
        family=printable(usual["architecture"], 100),
        image=image,
        notes=(configuration_note(image, "timm"),),
    )
