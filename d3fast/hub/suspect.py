# SPDX-License-Identifier: Apache-2.0
"""What a resolver is asked for and what it returns."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from d3fast.detox import D3Config


@dataclass(frozen=True)
class Request:
    """A model as the user named it, and what the user said of it.

    Attributes:
        model: a folder, ``hf://org/name``, ``timm:NAME``, ``torchvision:NAME``, a weight file, a
            name of ``d3fast.models`` or ``package.module:factory``.
        checkpoint: a weight file beside a name or a factory; ``None`` for the model's own weights.
        classes: number of classes that the samples have; a factory may need it. ``None`` if the
            samples do not tell.
        channels: channels of the samples' images; ``None`` for texts.
        mean: normalisation of images in [0, 1], one number per channel; the model's own if
            ``None``.
        std: as ``mean``.
        size: height and width of the images; the model's own if ``None``.
        answers: one word per class, for a causal language model; empty for other models.
    """

    model: str
    checkpoint: Path | None = None
    classes: int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    answers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageInput:
    """What the images of a model look like. The samples are read accordingly.

    The model takes images in [0, 1]; ``Classifier`` normalises them.

    Attributes:
        channels: 1 or 3.
        size: height and width; ``None`` if the model takes any.
        shorter: length to resize the shorter edge to before a centre crop of ``size``; ``None``
            stretches the image to ``size``.
        interpolation: of that resizing: nearest, bilinear, bicubic or lanczos.
        mean: of the normalisation inside the model, for the documents; ``None`` without one.
        std: as ``mean``.
    """

    channels: int
    size: tuple[int, int] | None = None
    shorter: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"


@dataclass(frozen=True, eq=False)
class TextInput:
    """How texts become the token ids of a model.

    Attributes:
        tokenizer: a tokenizer of transformers that pads on the right.
        length: maximum number of tokens of a text.
        pad: padding id.
    """

    tokenizer: Any
    length: int
    pad: int


class Writer(Protocol):
    """Save a repaired model in the format that the suspect came in."""

    def __call__(self, model: nn.Module, folder: Path, config: D3Config | None = None) -> Path:
        """Write ``folder/repaired`` or ``folder/repaired.safetensors`` and return its path.

        Tensors that equal the suspect's keep their bytes. The files appear together or not at all.

        Args:
            model: a module with the names of the suspect's ``model``.
            folder: an existing folder.
            config: the options of the repair, for the file's metadata.
        """
        ...


@dataclass(frozen=True, eq=False)
class Suspect:
    """A model from elsewhere, ready to be audited.

    Attributes:
        model: from inputs to scores (N, classes), in eval mode, on the CPU. Parameter names are
            those of the files. Inputs are images (N, C, H, W) in [0, 1], or token ids (N, L).
        name: a short name for folders and pages, for example that of the model's folder.
        spec: how a command line names the model, without folders of this machine.
        family: the architecture, such as ``"resnet"`` or ``"bert"``.
        input: what the inputs look like.
        classes: names of the outputs; ``None`` if the model does not tell.
        files: the weight files that were read.
        sha256: of the weight file; of several files, of their sorted names and digests.
        notes: what was inferred, one sentence each; commands print them.
        save: the writer.
    """

    model: nn.Module
    name: str
    spec: str
    family: str
    input: ImageInput | TextInput
    classes: tuple[str, ...] | None
    files: tuple[Path, ...]
    sha256: str
    notes: tuple[str, ...]
    save: Writer
