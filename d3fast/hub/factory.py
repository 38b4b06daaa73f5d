# SPDX-License-Identifier: Apache-2.0
"""A model of ``d3fast.models`` or of the user's own code, with a weight file."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from d3fast.detox import D3Config, save_weights
from d3fast.hub.classifier import Classifier
from d3fast.hub.suspect import ImageInput, Request, Suspect
from d3fast.io.files import sha256
from d3fast.models import MODELS, load_weights, make_model

REPAIRED = "repaired.safetensors"


@dataclass(frozen=True)
class WeightsWriter:
    """Save a model as one safetensors file, the counterpart of a bare weight file."""

    def __call__(self, model: nn.Module, folder: Path, config: D3Config | None = None) -> Path:
        """Write ``folder/repaired.safetensors``; see ``Writer``."""
        save_weights(model, folder / REPAIRED, config)
        return folder / REPAIRED


def resolve_factory(request: Request) -> Suspect | None:
    """Build a model by name or factory and fill it from ``request.checkpoint``; see ``make_model``.

    Raises:
        ValueError: no checkpoint, or one that does not fit; samples without classes or channels; a
            factory that raises.
    """
    known = request.model in MODELS
    if not known and (":" not in request.model or "://" in request.model):
        return None
    if request.checkpoint is None:
        raise ValueError(f"model {request.model!r} needs a weight file: give --checkpoint FILE")
    if request.classes is None or request.channels is None:
        raise ValueError(f"model {request.model!r} needs labelled images, got other samples")
    model = make_model(request.model, request.classes, request.channels)
    load_weights(model, request.checkpoint)
    size = None if request.size is None else (request.size, request.size)
    return Suspect(
        model=Classifier(model, request.mean, request.std).eval(),
        name=request.checkpoint.stem,
        spec=request.model,
        family=type(model).__name__,
        input=ImageInput(request.channels, size, mean=request.mean, std=request.std),
        classes=None,
        files=(request.checkpoint,),
        sha256=sha256(request.checkpoint),
        notes=(),
        save=WeightsWriter(),
    )
