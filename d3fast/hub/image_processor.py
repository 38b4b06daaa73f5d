# SPDX-License-Identifier: Apache-2.0
"""Size, crop and normalisation of an image classifier's inputs, from its hub folder.

An image processor of transformers resizes, crops, multiplies bytes by ``rescale_factor`` and
normalises. All but the resizing is an affine map per channel, so for images x in [0, 1] it is
(x − mean) / std with another mean and std. Which keys mean what is read here; no processor is run.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from d3fast.hub.folders import HubFolder
from d3fast.hub.suspect import ImageInput, Request
from d3fast.io.hub_files import read_folder_json
from d3fast.io.untrusted import printable

PREPROCESSOR = "preprocessor_config.json"
_MAX_EDGE = 8192
_KNOWN = (
    *("Beit", "Bit", "CLIP", "ConvNext", "DeiT", "EfficientNet", "Levit", "MobileNetV1"),
    *("MobileNetV2", "MobileViT", "PoolFormer", "Pvt", "Segformer", "Siglip", "ViT"),
)
# Those that crop unless their file says otherwise.
_CROPS = ("Bit", "CLIP", "DeiT", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "PoolFormer")
_UNDONE = ("do_pad", "do_thumbnail", "do_color_quantize", "do_align_long_axis")
_WARPS = 384  # ConvNext: from this edge on images are stretched, not cropped


@dataclass(frozen=True)
class FoundInput:
    """What a folder says of its images.

    Attributes:
        input: size, crop, mean and std.
        reversed: whether the model takes blue, green, red.
        notes: what was not said or cannot be done, one sentence each.
    """

    input: ImageInput
    reversed: bool = False
    notes: tuple[str, ...] = ()


def reverse_channels(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the inputs of a model with red and blue exchanged: a pre-forward hook."""
    return (inputs[0].flip(1), *inputs[1:])


def image_input(folder: HubFolder, request: Request) -> FoundInput:
    """Return what the images of a hub folder's model look like; the user's word comes first.

    Raises:
        ValueError: a damaged file; numbers that cannot be a size, a mean or a std; a model of other
            than 1 or 3 channels.
        OSError: a file that cannot be read.
    """
    inner = folder.config.get("vision_config")  # of models that have a text encoder too
    config = inner if isinstance(inner, dict) else folder.config
    channels = config.get("num_channels", 3)
    if channels not in (1, 3):
        raise ValueError(
            f"{printable(folder.path)}: the model must take 1 or 3 channels, got "
            f"{printable(channels, 40)}"
        )
    settings = _settings(folder)
    try:
        found = _read(settings, config, channels)
    except ValueError as error:
        raise ValueError(f"{printable(folder.path / PREPROCESSOR)}: {error}") from None
    return overridden(found, request)


def overridden(found: FoundInput, request: Request) -> FoundInput:
    """Replace what the user gave: mean, std, size.

    Raises:
        ValueError: a mean or std for another number of channels.
    """
    mean, std = request.mean or found.input.mean, request.std or found.input.std
    for option, given in (("--mean", request.mean), ("--std", request.std)):
        if given is not None and len(given) != found.input.channels:
            raise ValueError(
                f"{option} must have {found.input.channels} numbers, one per channel, got {given}"
            )
    new = replace(found.input, mean=mean, std=std)
    if request.size is not None:
        old = found.input.size
        shorter = found.input.shorter
        if shorter is not None and old is not None:
            shorter = round(shorter * request.size / min(old))
        new = replace(new, size=(request.size, request.size), shorter=shorter)
    return replace(found, input=new)


def _settings(folder: HubFolder) -> Mapping[str, Any] | None:
    found = read_folder_json(folder.path, PREPROCESSOR)
    if found is None:
        processors = read_folder_json(folder.path, "processor_config.json") or {}
        inner = processors.get("image_processor")
        found = inner if isinstance(inner, dict) else None
    return found


def _read(
    settings: Mapping[str, Any] | None, config: Mapping[str, Any], channels: int
) -> FoundInput:
    own = config.get("image_size")
    size = None if own is None else edges(own, "image_size")
    if settings is None:
        note = (
            f"The folder has no {PREPROCESSOR}: images are given in [0, 1], without a "
            "normalisation; use --mean and --std if the model was trained with one."
        )
        return FoundInput(ImageInput(channels, size), notes=(note,))
    notes = []
    kind = settings.get("image_processor_type", settings.get("feature_extractor_type"))
    name = kind if isinstance(kind, str) else ""
    for ending in ("FeatureExtractor", "ImageProcessor", "ImageProcessorFast", "ImageProcessorPil"):
        name = name.removesuffix(ending)
    if name not in _KNOWN:
        notes.append(
            f"The image processor '{printable(kind, 60)}' is not known: its size, mean and std are "
            "taken as they stand."
        )
    notes += [
        f"The image processor also asks for {key}, which is not done here."
        for key in _UNDONE
        if settings.get(key)
    ]
    mean, std = _normalisation(settings, name, channels)
    if settings.get("do_resize", True) or settings.get("do_center_crop"):
        size, shorter, more = _geometry(settings, name, size)
        notes += more
    else:
        shorter = None
    flipped = bool(settings.get("do_flip_channel_order", name == "MobileViT")) and channels == 3
    return FoundInput(ImageInput(channels, size, shorter, mean, std), flipped, tuple(notes))


def _normalisation(
    settings: Mapping[str, Any], name: str, channels: int
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the mean and std of the whole affine map, for images in [0, 1]."""
    scale = 255.0
    if settings.get("do_rescale", True):
        scale *= number(settings.get("rescale_factor", 1 / 255), "rescale_factor")
    scale = 1.0 if math.isclose(scale, 1, rel_tol=1e-6) else scale
    if not scale > 0:
        raise ValueError("rescale_factor must be > 0")
    shift = 1.0 if settings.get("rescale_offset") else 0.0
    means, stds = [0.0] * channels, [1.0] * channels
    stored = numbers(settings.get("image_std"), "image_std", channels)
    if any(not value > 0 for value in stored or ()):
        raise ValueError(f"image_std must be > 0, got {stored}")
    if settings.get("do_normalize", stored is not None):
        means = numbers(settings.get("image_mean"), "image_mean", channels) or means
        stds = stored or stds
    if name == "EfficientNet" and settings.get("include_top", True) and stored is not None:
        stds = [a * b for a, b in zip(stds, stored, strict=True)]  # it divides once more
    mean = tuple((shift + m) / scale for m in means)
    std = tuple(s / scale for s in stds)
    return (None, None) if set(mean) == {0.0} and set(std) == {1.0} else (mean, std)


def _geometry(
    settings: Mapping[str, Any], name: str, own: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, int | None, list[str]]:
    """Return size, shorter edge before the crop, and notes."""
    given = settings.get("size")
    resizes = bool(settings.get("do_resize", True)) and given is not None
    crops = bool(settings.get("do_center_crop", name in _CROPS)) and bool(settings.get("crop_size"))
    crop = edges(settings["crop_size"], "crop_size") if crops else None
    if not resizes:
        return crop or own, None, []
    short = given.get("shortest_edge") if isinstance(given, dict) else None
    if isinstance(given, int) and (crops or name in ("ConvNext", "PoolFormer")):
        short = given
    if short is None:
        return _stretched(given, crop, own)
    short = edge(short, "size")
    if name == "ConvNext" or (name == "PoolFormer" and "crop_pct" in settings):
        share = number(settings.get("crop_pct") or 224 / 256, "crop_pct")
        if not 0.1 <= share <= 1:
            raise ValueError(f"crop_pct must be between 0.1 and 1, got {share}")
        if name == "ConvNext" and short >= _WARPS:
            return (short, short), None, []
        return crop or (short, short), int(short / share), []
    if name == "Levit":
        short = int(256 / 224 * short)
    return crop or (short, short), short, []


def _stretched(
    given: Any, crop: tuple[int, int] | None, own: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, int | None, list[str]]:
    if isinstance(given, dict) and not {"height", "width"} <= given.keys():
        keys = printable(", ".join(map(str, given)), 80)
        return crop or own, None, [f"The image processor's size ({keys}) is not known."]
    size = edges(given, "size")
    if crop is None or crop == size:
        return size, None, []
    note = (
        f"The image processor stretches images to {size[0]}x{size[1]} before the crop; here the "
        "shorter edge is resized, which differs for images that are not square."
    )
    return crop, min(size), [note]


def edges(given: Any, key: str) -> tuple[int, int]:
    """Return height and width of a size: a number, a list (height, width), or a dictionary.

    Raises:
        ValueError: anything but numbers of 1 to 8192; the message names the key.

    Example:
        >>> edges(224, "size"), edges([3, 224, 192], "input_size")
        ((224, 224), (224, 192))
    """
    if isinstance(given, dict):
        given = [given.get("height"), given.get("width")]
    if isinstance(given, list) and len(given) in (2, 3):
        height, width = given[-2:]
        return edge(height, key), edge(width, key)
    return edge(given, key), edge(given, key)


def edge(given: Any, key: str) -> int:
    """Return a length in pixels; raise ``ValueError`` unless it is 1 to 8192."""
    if type(given) is not int or not 0 < given <= _MAX_EDGE:
        raise ValueError(f"{key} must be 1 to {_MAX_EDGE}, got {printable(given, 60)}")
    return given


def number(given: Any, key: str) -> float:
    """Return a finite number; raise ``ValueError`` for anything else."""
    if type(given) not in (int, float) or not math.isfinite(given):
        raise ValueError(f"{key} must be a number, got {printable(given, 60)}")
    return float(given)


def numbers(given: Any, key: str, channels: int) -> list[float] | None:
    """Return one number per channel of a list or a number; ``None`` for ``None``.

    Raises:
        ValueError: another number of numbers, or something else; the message names the key.
    """
    if given is None:
        return None
    listed = given if isinstance(given, list) else [given]
    if len(listed) not in (1, channels):
        raise ValueError(f"{key} must have {channels} numbers, got {printable(given, 60)}")
    values = [number(value, key) for value in listed]
    return values * channels if len(values) == 1 else values
