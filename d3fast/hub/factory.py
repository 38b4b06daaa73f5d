# SPDX-License-Identifier: Apache-2.0
"""A model of ``d3fast.models`` or of the user's own code, with a weight file."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from d3fast.detox import D3Config
from d3fast.detox.save import save_tensors
from d3fast.hub.classifier import Classifier
from d3fast.hub.suspect import ImageInput, Request, Suspect
from d3fast.io.checkpoints import WeightsRead
from d3fast.io.files import sha256
from d3fast.io.untrusted import printable
from d3fast.models import MODELS, load_weights, make_model

REPAIRED = "repaired.safetensors"


@dataclass(frozen=True)
class WeightsWriter:
    """Save a model as one safetensors file, the counterpart of a bare weight file.

    Names are those of the file, prefix included, and so are the dtypes: a tensor that did not
    change has the bytes that it had. Tensors of the file that the model does not have are not
    written.

    Attributes:
        read: names and dtypes of the file.
    """

    read: WeightsRead

    def __call__(self, model: nn.Module, folder: Path, config: D3Config | None = None) -> Path:
        """Write ``folder/repaired.safetensors``; see ``Writer``."""
        state = model.state_dict()
        tensors = {
            stored: _narrowed(state[name], self.read.dtypes[name])
            for name, stored in self.read.names.items()
        }
        save_tensors(tensors, folder / REPAIRED, config)
        return folder / REPAIRED


def _narrowed(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a tensor in the dtype of the file, or as it is where that dtype cannot hold it."""
    narrow = value.to(dtype)
    return narrow if bool(narrow.isfinite().all()) else value


def weight_file_suspect(
    model: nn.Module,
    request: Request,
    *,
    spec: str,
    family: str,
    image: ImageInput,
    notes: tuple[str, ...] = (),
) -> Suspect:
    """Fill a model from ``request.checkpoint`` and return it as a suspect.

    Args:
        model: with the names of the file.
        request: with a checkpoint.
        spec: how a command line names the model.
        family: the architecture.
        image: what the images look like; its mean and std go in front of the model.
        notes: what was inferred so far.

    Raises:
        ValueError: no checkpoint, or one that does not fit.
        OSError: a file that cannot be opened.
    """
    checkpoint = needed_checkpoint(request)
    read = load_weights(model, checkpoint)
    return Suspect(
        model=Classifier(model, image.mean, image.std).eval(),
        name=checkpoint.stem,
        spec=spec,
        family=family,
        input=image,
        classes=None,
        files=(checkpoint,),
        sha256=sha256(checkpoint),
        notes=(*notes, *read.notes),
        save=WeightsWriter(read),
    )


def needed_checkpoint(request: Request) -> Path:
    """Return the weight file of a request.

    Raises:
        ValueError: there is none.
    """
    if request.checkpoint is None:
        raise ValueError(
            f"model {printable(request.model, 200)!r} needs a weight file, nothing is downloaded: "
            "give --checkpoint FILE"
        )
    return request.checkpoint


def configuration_note(image: ImageInput, library: str) -> str:
    """Return the sentence on what a library's configuration says of the images.

    Example:
        >>> configuration_note(ImageInput(1, (28, 28), 32, (0.5,), (0.5,)), "timm")
        'As timm configures it: 1x28x28 pixels cut from a shorter edge of 32, mean 0.5, std 0.5.'
    """
    size = "x".join(map(str, (image.channels, *(image.size or ("any size",)))))
    crop = "" if image.shorter is None else f" cut from a shorter edge of {image.shorter}"
    mean, std = (" ".join(f"{v:g}" for v in values or ()) for values in (image.mean, image.std))
    return f"As {library} configures it: {size} pixels{crop}, mean {mean}, std {std}."


def is_factory(model: str) -> bool:
    """Return whether a model is a name of ``d3fast.models`` or may be a factory.

    Example:
        >>> is_factory("vit_tiny"), is_factory("my.module:build"), is_factory("hf://org/name")
        (True, True, False)
    """
    library = model.startswith(("timm:", "torchvision:")) or "://" in model
    return model in MODELS or (":" in model and not library)


def resolve_factory(request: Request) -> Suspect | None:
    """Build a model by name or factory and fill it from ``request.checkpoint``; see ``make_model``.

    Raises:
        ValueError: no checkpoint, or one that does not fit; samples without classes or channels; a
            factory that raises.
    """
    if not is_factory(request.model):
        return None
    needed_checkpoint(request)
    if request.classes is None or request.channels is None:
        raise ValueError(f"model {request.model!r} needs labelled images, got other samples")
    model = make_model(request.model, request.classes, request.channels)
    size = None if request.size is None else (request.size, request.size)
    image = ImageInput(request.channels, size, mean=request.mean, std=request.std)
    return weight_file_suspect(
        model, request, spec=request.model, family=type(model).__name__, image=image
    )


def unfilled_suspect(request: Request) -> Suspect:
    """Build a model by name or factory and leave its weights random: there is nothing to audit.

    Raises:
        ValueError: samples without classes or channels; an unknown name; a factory that raises.
    """
    if request.classes is None or request.channels is None:
        raise ValueError(f"model {request.model!r} needs labelled images, got other samples")
    model = make_model(request.model, request.classes, request.channels)
    size = None if request.size is None else (request.size, request.size)
    return Suspect(
        model=Classifier(model, request.mean, request.std).eval(),
        name=request.model,
        spec=request.model,
        family=type(model).__name__,
        input=ImageInput(request.channels, size, mean=request.mean, std=request.std),
        classes=None,
        files=(),
        sha256="",
        notes=(),
        save=_nothing_to_save,
    )


def _nothing_to_save(model: nn.Module, folder: Path, config: D3Config | None = None) -> Path:
    raise ValueError("a model with random weights has no file to save to")
