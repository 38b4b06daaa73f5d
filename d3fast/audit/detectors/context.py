# SPDX-License-Identifier: Apache-2.0
"""The input of a detector: a frozen model, and clean images with their labels, checked once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from d3fast.audit.inversion import Inversion
from d3fast.data.base import ImageData, as_float
from d3fast.runtime.checks import check_integer
from d3fast.runtime.seeding import generator
from d3fast.training.loaders import class_scores
from d3fast.training.modes import frozen

_BATCH = 256


@dataclass(frozen=True, eq=False)
class InspectionContext:
    """A model under inspection; ``open_context`` makes one.

    Attributes:
        model: in eval mode, its weights frozen.
        images: (N, C, H, W) in [0, 1], on the model's device.
        labels: (N,), on the CPU.
        classes: number of classes.
        seed: of everything random; every detector and class has its own stream.
        inversions: one per searched class, or empty before they have been found.
        sample: the classes that a search looks at, in order; empty for all.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    classes: int
    seed: int = 0
    inversions: tuple[Inversion, ...] = ()
    sample: tuple[int, ...] = ()

    @property
    def searched(self) -> tuple[int, ...]:
        """The classes that a search looks at: all, or a sample of many."""
        return self.sample or tuple(range(self.classes))

    def others(self, target: int) -> Tensor:
        """Return the positions of the images of other classes, on the CPU."""
        return (self.labels != target).nonzero()[:, 0]

    def draws(self, purpose: str) -> torch.Generator:
        """Return a CPU generator for one purpose."""
        return generator(self.seed, f"inspection: {purpose}")

    def scores(self, images: Tensor) -> Tensor:
        """Return the scores (N, classes) of images.

        Raises:
            ValueError: another number of classes than the samples have.
        """
        scores = class_scores(self.model, images)
        if scores.shape[1] != self.classes:
            raise ValueError(
                f"the model has {scores.shape[1]} classes, the samples have {self.classes}"
            )
        return scores


@contextmanager
def open_context(
    model: nn.Module, data: ImageData, device: torch.device, seed: int = 0
) -> Iterator[InspectionContext]:
    """Check model and samples, and freeze the model inside a ``with`` block.

    Modes and ``requires_grad`` flags are restored afterwards.

    Raises:
        ValueError: no samples, or images outside [0, 1]; all samples of one class; a model with
            another number of classes; NaN or inf in its scores.
    """
    check_integer("seed", seed, 0)
    images, labels = _checked(data)
    model.to(device)
    with frozen(model):
        context = InspectionContext(model, images.to(device), labels, len(data.classes), seed)
        _check_scores(context)
        yield context


def _checked(data: ImageData) -> tuple[Tensor, Tensor]:
    images, labels = as_float(data.images), data.labels.cpu()
    if not bool(((images >= 0) & (images <= 1)).all()):  # NaN is neither
        raise ValueError("images must be in [0, 1]; put a normalisation into the model")
    check_classes(labels, data.classes)
    return images, labels


def check_classes(labels: Tensor, classes: Sequence[str]) -> None:
    """Raise ``ValueError`` unless there are samples, of two or more classes."""
    if not len(labels):
        raise ValueError("inspection needs clean samples, got none")
    present = torch.unique(labels)
    if len(present) < 2:
        raise ValueError(
            "inspection needs clean samples of two or more classes, all are of "
            f"{classes[int(present[0])]!r}"
        )


@torch.no_grad()
def _check_scores(context: InspectionContext) -> None:
    for images in torch.split(context.images, _BATCH):
        if not bool(context.scores(images).isfinite().all()):
            raise ValueError("the model gives NaN or inf scores on the clean samples")
