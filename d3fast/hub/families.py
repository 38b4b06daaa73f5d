# SPDX-License-Identifier: Apache-2.0
"""A bare weight file as the model: the architecture is inferred from names and shapes.

A few names tell a family; its members are then built on the meta device and compared with the file.
An architecture counts only if all its names are in the file and all shapes fit, except for the
numbers of classes and channels, which the file tells. ``FAMILIES`` lists the families. To add one,
add a row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from d3fast.hub.factory import weight_file_suspect
from d3fast.hub.fitting import sizes_in_file
from d3fast.hub.suspect import ImageInput, Request, Suspect
from d3fast.hub.timm_names import resolve_timm
from d3fast.hub.torchvision_names import resolve_torchvision
from d3fast.io.checkpoints import stored_names
from d3fast.io.untrusted import printable
from d3fast.io.weight_files import SUFFIXES
from d3fast.models import MODELS

_CLASSES, _CHANNELS = 1000, 3


@dataclass(frozen=True)
class Family:
    """Architectures whose weights have some names in common.

    Attributes:
        title: of the family, for errors.
        names: the file has all of these, perhaps after a prefix.
        members: names of the library, likeliest first.
        libraries: that build the members under the same weight names, preferred first.
    """

    title: str
    names: tuple[str, ...]
    members: tuple[str, ...]
    libraries: tuple[str, ...]


FAMILIES = (
    Family(
        "a ResNet with bottlenecks",
        ("layer4.0.conv3.weight", "conv1.weight", "fc.weight"),
        ("resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d"),
        ("torchvision", "timm"),
    ),
    Family(
        "a ResNet",
        ("layer4.0.conv2.weight", "conv1.weight", "fc.weight"),
        ("resnet18", "resnet34"),
        ("torchvision", "timm"),
    ),
    Family(
        "a VGG with batch norm",
        ("features.0.weight", "features.1.running_mean", "classifier.6.weight"),
        ("vgg16_bn", "vgg19_bn", "vgg13_bn", "vgg11_bn"),
        ("torchvision",),
    ),
    Family(
        "a VGG",
        ("features.0.weight", "classifier.6.weight"),
        ("vgg16", "vgg19", "vgg13", "vgg11", "alexnet"),
        ("torchvision",),
    ),
    Family(
        "a DenseNet",
        ("features.denseblock4.denselayer1.conv1.weight",),
        ("densenet121", "densenet169", "densenet201", "densenet161"),
        ("torchvision", "timm"),
    ),
    Family(
        "a MobileNet or EfficientNet of torchvision",
        ("features.0.0.weight", "features.1.conv.0.0.weight", "classifier.1.weight"),
        ("mobilenet_v2",),
        ("torchvision",),
    ),
    Family(
        "a MobileNet v3 of torchvision",
        ("features.0.0.weight", "classifier.3.weight"),
        ("mobilenet_v3_large", "mobilenet_v3_small"),
        ("torchvision",),
    ),
    Family(
        "a MobileNet of timm",
        ("conv_stem.weight", "blocks.0.0.conv_dw.weight", "classifier.weight"),
        ("mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b0"),
        ("timm",),
    ),
    Family(
        "a ViT of timm",
        ("patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "pos_embed", "head.weight"),
        (
            "vit_base_patch16_224",
            "vit_small_patch16_224",
            "vit_tiny_patch16_224",
            "vit_large_patch16_224",
            "vit_base_patch32_224",
            "deit_base_distilled_patch16_224",
        ),
        ("timm",),
    ),
    Family(
        "a ViT of torchvision",
        ("conv_proj.weight", "encoder.layers.encoder_layer_0.ln_1.weight", "heads.head.weight"),
        ("vit_b_16", "vit_b_32", "vit_l_16"),
        ("torchvision",),
    ),
)


_RESOLVE: Mapping[str, Callable[[Request], Suspect | None]] = MappingProxyType(
    {"timm": resolve_timm, "torchvision": resolve_torchvision}
)


def _is_there(library: str) -> bool:
    try:
        import_module(library)
    except Exception:  # torchvision raises RuntimeError beside a torch of another version
        return False
    return True


def _has(names: frozenset[str], wanted: str) -> bool:
    return wanted in names or any(name.endswith(f".{wanted}") for name in names)


def _own(request: Request, path: Path) -> Suspect | None:
    """Return the suspect if the file is of a model of ``d3fast.models``."""
    for name, build in MODELS.items():
        try:
            classes, channels = sizes_in_file(build, path, _CLASSES, _CHANNELS)
        except (ValueError, LookupError):
            continue
        size = None if request.size is None else (request.size, request.size)
        return weight_file_suspect(
            build(classes, channels),
            replace(request, checkpoint=path),
            spec=name,
            family=name,
            image=ImageInput(channels, size, mean=request.mean, std=request.std),
            notes=(f"{_inferred(name)}, {classes} classes, {channels} channels.",),
        )
    return None


def _inferred(name: str) -> str:
    return f"The architecture is inferred from names and shapes of the weights: {name}"


def _of_library(request: Request, path: Path, family: Family, library: str) -> Suspect | None:
    """Return the suspect if the file is of a member of a family as a library builds it."""
    for member in family.members:
        named = replace(request, model=f"{library}:{member}", checkpoint=path)
        try:
            suspect = _RESOLVE[library](named)
        except ValueError:
            continue
        if suspect is not None:
            return replace(suspect, notes=(_assumed(named), *suspect.notes))
    return None


def _assumed(request: Request) -> str:
    given = request.mean is not None
    rest = "" if given else " Its mean and std are assumed: give --mean and --std if they differ."
    return f"{_inferred(request.model)}.{rest}"


def resolve_weight_file(request: Request) -> Suspect | None:
    """Infer the architecture of a bare weight file and read it.

    Raises:
        ValueError: a damaged file; a file whose architecture cannot be inferred, with what is
            needed; a second file as checkpoint.
        OSError: a file that cannot be opened.
    """
    path = Path(request.model)
    if path.suffix.lower() not in SUFFIXES or "://" in request.model or path.is_dir():
        return None
    shown = printable(path)
    if request.checkpoint is not None:
        raise ValueError(f"{shown} is a weight file: give it alone, without --checkpoint")
    names = stored_names(path)
    suspect = _own(request, path)
    missing: set[str] = set()
    for family in FAMILIES if suspect is None else ():
        if not all(_has(names, name) for name in family.names):
            continue
        for library in family.libraries:
            if not _is_there(library):
                missing.add(f"{family.title} needs {library}: pip install {library}")
            elif suspect is None:
                suspect = _of_library(request, path, family, library)
    if suspect is None:
        hint = f" ({'; '.join(sorted(missing))})" if missing else ""
        raise ValueError(
            f"{shown}: names and shapes of its weights do not tell the architecture{hint}: name it "
            "with --checkpoint for the file, as timm:NAME, torchvision:NAME or "
            "package.module:factory; or give a whole folder of Hugging Face"
        )
    return suspect
