# SPDX-License-Identifier: Apache-2.0
"""A model of timm in a hub folder: ``config.json`` with ``architecture`` and ``pretrained_cfg``.

timm writes such folders, and so does transformers around a model of timm, with a prefix on the
weights. Both are built by timm itself, so that the names are those of timm.
"""

from typing import Any

import torch
from torch import nn

from d3fast.hub.classifier import Classifier
from d3fast.hub.folder_writer import FolderWriter
from d3fast.hub.folders import HubFolder, find_folder
from d3fast.hub.image_processor import FoundInput, edges, number, numbers, overridden
from d3fast.hub.pretrained import bounded, check_counts, class_names, folder_notes
from d3fast.hub.suspect import ImageInput, Request, Suspect
from d3fast.hub.timm_names import build_timm
from d3fast.io.files import files_digest
from d3fast.io.hub_files import WeightFiles, find_weights, load_weight_files
from d3fast.io.untrusted import printable

_WRAPPER = "timm_model."
_MAX_NAME = 100
# Options of timm.create_model that name files or places, and those that are given here.
_NOT_OPTIONS = ("pretrained", "checkpoint", "cache", "features_only", "scriptable", "exportable")
_GIVEN = ("model_name", "num_classes", "no_jit")


def resolve_timm_folder(request: Request) -> Suspect | None:
    """Read a hub folder with a model of timm; ``None`` for other forms of model.

    Raises:
        ValueError: no timm; an architecture that it does not know; a configuration that is damaged
            or larger than the weights; weights that do not fit.
        OSError: a file that cannot be read.
    """
    folder = find_folder(request.model)
    if folder is None or not isinstance(folder.config.get("pretrained_cfg"), dict):
        return None
    if request.checkpoint is not None:
        raise ValueError(
            f"'{printable(request.model, 200)}' brings its own weights: leave out --checkpoint"
        )
    weights = find_weights(folder.path)
    name, options = _options(folder)
    model = _built(folder, weights, name, options)
    names, unused = load_weight_files(model, weights, lambda n: n.removeprefix(_WRAPPER))
    found = overridden(_image(folder, options["in_chans"]), request)
    labels = folder.config.get("label_names")
    listed = {str(i): label for i, label in enumerate(labels)} if isinstance(labels, list) else None
    classes, more = class_names(folder, listed, options["num_classes"])
    return Suspect(
        model=Classifier(model, found.input.mean, found.input.std).eval(),
        name=folder.name,
        spec=folder.spec,
        family=name,
        input=found.input,
        classes=classes,
        files=weights.files,
        sha256=files_digest(weights.files),
        notes=(
            *folder_notes(folder, weights, unused, f"{name} of timm"),
            *found.notes,
            *more,
        ),
        save=FolderWriter(weights, names),
    )


def _options(folder: HubFolder) -> tuple[str, dict[str, Any]]:
    """Return the name of the architecture and the options of ``timm.create_model``."""
    shown = printable(folder.path / "config.json")
    config = folder.config
    name = config.get("architecture")
    if not isinstance(name, str) or len(name) > _MAX_NAME or not name.isidentifier():
        raise ValueError(f"{shown}: '{printable(name, 80)}' is no architecture of timm")
    given = config.get("model_args") or {}
    if not isinstance(given, dict):
        raise ValueError(f"{shown}: model_args must be a JSON object")
    for option in given:
        if option.startswith(_NOT_OPTIONS) or option in _GIVEN:
            raise ValueError(f"{shown}: the option '{printable(option, 80)}' of timm is refused")
    check_counts(given, "", shown)
    classes = config.get("num_classes")
    check_counts(classes, "num_classes", shown)
    if type(classes) is not int or classes < 1:
        raise ValueError(f"{shown}: num_classes must be a number, got {printable(classes, 40)}")
    channels = given.get("in_chans", _input_size(folder)[0])
    if channels not in (1, 3):
        raise ValueError(
            f"{shown}: the model must take 1 or 3 channels, got {printable(channels, 40)}"
        )
    return name, {**given, "num_classes": classes, "in_chans": channels}


def _built(
    folder: HubFolder, weights: WeightFiles, name: str, options: dict[str, Any]
) -> nn.Module:
    """Build the model, on the meta device first, where a huge one takes no memory."""
    try:
        with bounded(folder, weights), torch.device("meta"):
            build_timm(name, **options)
        return build_timm(name, **options)
    except ValueError as error:
        raise ValueError(f"{printable(folder.path / 'config.json')}: {error}") from None


def _input_size(folder: HubFolder) -> list[Any]:
    size = folder.config["pretrained_cfg"].get("input_size")
    if not isinstance(size, list) or len(size) != 3:
        shown = printable(folder.path / "config.json")
        raise ValueError(f"{shown}: input_size must be (channels, height, width)")
    return size


def _image(folder: HubFolder, channels: int) -> FoundInput:
    """Return what ``pretrained_cfg`` says of the images."""
    usual = folder.config["pretrained_cfg"]
    try:
        size = edges(_input_size(folder), "input_size")
        share = number(usual.get("crop_pct") or 0.875, "crop_pct")
        if not 0.1 <= share <= 1:
            raise ValueError(f"crop_pct must be between 0.1 and 1, got {share}")
        mean, std = (numbers(usual.get(key), key, channels) for key in ("mean", "std"))
        if any(not value > 0 for value in std or ()):
            raise ValueError(f"std must be > 0, got {std}")
    except ValueError as error:
        raise ValueError(f"{printable(folder.path / 'config.json')}: {error}") from None
    shorter = None if usual.get("crop_mode") == "squash" else int(min(size) / share)
    if mean is None or std is None:
        note = "pretrained_cfg has no mean and std: images are given in [0, 1] as they are."
        return FoundInput(ImageInput(channels, size, shorter), notes=(note,))
    return FoundInput(ImageInput(channels, size, shorter, tuple(mean), tuple(std)))
