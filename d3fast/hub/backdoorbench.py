# SPDX-License-Identifier: Apache-2.0
"""Result files of BackdoorBench: ``attack_result.pt`` and ``defense_result.pt``.

Such a file is a dictionary of ``torch.save``: ``model_name``, ``num_classes``, ``model`` (weights
by name), ``img_size``, ``clean_data`` (name of the data set), paths and poisoned samples. It is
read like any untrusted file; paths and samples are not. The architecture is that of ``model_name``,
built here; weights, number of classes and channels must fit it. The normalisation is the one that
models of the data set are trained with.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d3fast.hub.factory import weight_file_suspect
from d3fast.hub.fitting import sizes_in_file
from d3fast.hub.suspect import ImageInput, Request, Suspect
from d3fast.hub.torchvision_names import PREFIX, resolve_torchvision
from d3fast.io.untrusted import printable
from d3fast.io.weight_files import PICKLES, open_weights
from d3fast.models.preact_resnet_bare import bare_preact_resnet18

_KEYS = ("model_name", "num_classes", "model")
_OWN = "d3fast.models.preact_resnet_bare:bare_preact_resnet18"
# Architectures of torchvision that are resized to the images of the data set.
_TORCHVISION = (
    "alexnet",
    "densenet161",
    "efficientnet_b0",
    "efficientnet_b3",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext50_32x4d",
    "shufflenet_v2_x1_0",
    "squeezenet1_0",
    "vgg11_bn",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "wide_resnet50_2",
)
_MAX_SIDE = 1024
_NONE = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
# Mean and std of a channel.
_NORMALISATION: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = MappingProxyType(
    {
        "cifar10": ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)),
        "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
        "tiny": ((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "mnist": ((0.5,), (0.5,)),
        "gtsrb": _NONE,
        "celeba": _NONE,
    }
)


def _facts(path: Path) -> dict[str, Any] | None:
    """Return the plain values of a result file; ``None`` for another file, which is left alone."""
    try:
        with open_weights(path) as held:
            if not isinstance(held, Mapping) or not all(key in held for key in _KEYS):
                return None
            return {key: held.get(key) for key in (*_KEYS[:2], "img_size", "clean_data")}
    except ValueError:  # the reader of weight files says what is wrong
        return None


def _side(given: Any) -> int | None:
    """Return the height of the images, which must be square."""
    sizes = given if isinstance(given, (list, tuple)) else (given, given)
    if len(sizes) < 2 or type(sizes[0]) is not int or sizes[0] != sizes[1]:
        return None
    return sizes[0] if 1 <= sizes[0] <= _MAX_SIDE else None


def resolve_backdoorbench(request: Request) -> Suspect | None:
    """Read a result file of BackdoorBench; ``None`` for other forms of model.

    Raises:
        ValueError: an architecture that cannot be built here, or that the weights do not fit.
        OSError: a file that cannot be opened.
    """
    path = Path(request.model)
    if request.checkpoint is not None or path.suffix.lower() not in PICKLES or path.is_dir():
        return None
    if "://" in request.model or (facts := _facts(path)) is None:
        return None
    name, data = printable(facts["model_name"], 60), printable(facts["clean_data"], 60)
    side = request.size or _side(facts["img_size"])
    mean, std = _NORMALISATION.get(data, (None, None))
    note = f"A result file of BackdoorBench: {name}, trained on {data}"
    note += f", images of {side} pixels." if side else "."
    if request.mean is None:
        note += (
            f" No normalisation is known for {data}: give --mean and --std."
            if mean is None
            else f" Normalised as its models of {data} are."
        )
    wanted = replace(request, mean=request.mean or mean, std=request.std or std, size=side)
    suspect = _built(name, path, wanted)
    notes = (note, "Its paths and poisoned samples are not read.", *suspect.notes)
    return replace(suspect, notes=notes)


def _built(name: str, path: Path, request: Request) -> Suspect:
    """Return the suspect of an architecture by BackdoorBench's name.

    Raises:
        ValueError: an unknown architecture, or one that the weights do not fit.
    """
    if name == "preactresnet18":
        try:
            classes, channels = sizes_in_file(bare_preact_resnet18, path, 1000, 3)
        except LookupError as error:
            raise ValueError(f"{printable(path)} does not fit {name}: {error}") from None
        size = None if request.size is None else (request.size, request.size)
        return weight_file_suspect(
            bare_preact_resnet18(classes, channels),
            replace(request, checkpoint=path),
            spec=_OWN,
            family=name,
            image=ImageInput(channels, size, mean=request.mean, std=request.std),
        )
    if name not in _TORCHVISION:
        raise ValueError(
            f"{printable(path)} holds a model '{name}' of BackdoorBench, which d3fast cannot "
            "build: give --model package.module:factory --checkpoint FILE"
        )
    named = replace(request, model=f"{PREFIX}{name}", checkpoint=path)
    suspect = resolve_torchvision(named)
    assert suspect is not None
    assert isinstance(suspect.input, ImageInput)
    return replace(suspect, input=replace(suspect.input, shorter=None), notes=suspect.notes[1:])
