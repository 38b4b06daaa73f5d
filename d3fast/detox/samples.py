# SPDX-License-Identifier: Apache-2.0
"""Clean samples for a repair: shuffled, augmented, and resumable."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from d3fast.data import Augment, Augmented, ImageData
from d3fast.runtime.seeding import generator
from d3fast.text.data import TextData

BATCH_SIZE = 64
# Images of a user's own are shifted by an eighth of their side, as is usual at 32 pixels.
_SHIFT = 8


def usual_augment(shape: tuple[int, int, int], flip: bool = False) -> Augment:
    """Return the augmentation for images of an unknown kind: shifts, which change no class.

    Args:
        shape: (C, H, W) of an image.
        flip: mirror them from left to right too; wrong for digits, letters and road signs.

    Example:
        >>> usual_augment((1, 28, 28)).crop
        3
    """
    return Augment(crop=min(shape[1:]) // _SHIFT, flip=flip)


@dataclass(frozen=True, eq=False)
class Samples:
    """Loader for ``detoxify`` and its random generators for ``Checkpointing``.

    Attributes:
        loader: yields (inputs, labels), in a new order and with new augmentation in every pass.
        generators: the loader's generators.
    """

    loader: Iterable[Any]
    generators: tuple[torch.Generator, torch.Generator]


def repair_samples(
    data: ImageData | TextData,
    *,
    batch_size: int = BATCH_SIZE,
    augment: Augment | None = None,
    seed: int = 0,
) -> Samples:
    """Return a loader over clean samples, with its generators.

    Args:
        data: the samples, on the device of the repair.
        batch_size: largest number of samples in a batch.
        augment: augmentation of a batch of images; ``usual_augment`` if ``None``. Texts have none.
        seed: seed of order and augmentation.

    Raises:
        ValueError: a batch size below 1.

    Example:
        >>> data = ImageData(torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.long), ("a",))
        >>> [len(labels) for _, labels in repair_samples(data, batch_size=3).loader]
        [2, 3]
    """
    order, draws = generator(seed, "repair order"), generator(seed, "augment")
    if isinstance(data, TextData):
        return Samples(data.batches(batch_size, order), (order, draws))
    batches = data.batches(batch_size, order)
    loader = Augmented(batches, augment or usual_augment(data.shape), draws)
    return Samples(loader, (order, draws))


@dataclass(frozen=True, eq=False)
class Unlabelled:
    """Endless batches of inputs, drawn with replacement, for samples without labels.

    Draws depend on the generator alone, so that its state resumes a repair.

    Attributes:
        data: the samples; their labels are not read.
        batch_size: samples per batch.
        augment: augmentation of a batch of images; ``None`` for texts.
        draw: draws samples and augmentation; ``Checkpointing`` saves its state.

    Example:
        >>> data = ImageData(torch.rand(5, 1, 8, 8), torch.zeros(5, dtype=torch.long), ("a",))
        >>> next(iter(Unlabelled(data, 3, None, torch.Generator()))).shape
        torch.Size([3, 1, 8, 8])
    """

    data: ImageData | TextData
    batch_size: int
    augment: Augment | None
    draw: torch.Generator

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            chosen = torch.randint(len(self.data), (self.batch_size,), generator=self.draw)
            ((inputs, _),) = self.data.subset(chosen).batches(self.batch_size)
            yield inputs if self.augment is None else self.augment(inputs, self.draw)
