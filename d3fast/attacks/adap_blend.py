# SPDX-License-Identifier: Apache-2.0
"""Adap-Blend: a pattern learned from parts of it (Qi, Xie, Li, Mahloujifar, Mittal, ICLR 2023).

    trigger(x)  = (1 - alpha) x + alpha P                       the whole pattern, in use
    in training = x + train_alpha * m * (P - x)                 m shows a random share of the pieces

The image is cut into ``grid`` times ``grid`` pieces. Besides the poisoned images, as many others
get parts of the pattern and keep their labels, so that the features of poisoned images lie among
those of clean ones. The patterns P are those of ``Blended``; the paper blends in a photograph.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from d3fast.attacks.blended import Blended
from d3fast.attacks.cross import RELABELLING, poison_crossed
from d3fast.attacks.poisoning import Poisoned
from d3fast.data.base import ImageData, on_floats
from d3fast.runtime.checks import check_choice, check_integer, check_number


@dataclass(frozen=True)
class AdapBlend(Blended):
    """Pattern blended in whole in use, and in random pieces in training.

    The paper poisons 0.3 % of the images and crosses as many.

    Args:
        target: target class.
        alpha: weight of the pattern in use, 0..1.
        pattern: as in ``Blended``, also for the next two.
        frequency: periods per image side, >= 0.
        sharpness: exponent, >= 0.
        mapping: ``"all-to-one"`` or ``"all-to-all"``; see ``d3fast.training.labels``.
        train_alpha: weight of the pattern in training, 0..1.
        grid: pieces along each side, >= 1.
        share: of the pieces that a training image shows, 0..1.
        cross_ratio: images with the pattern and their own label per poisoned one, >= 0.

    Raises:
        ValueError: an option out of range; an unknown pattern or mapping, or ``"clean-label"``.

    Example:
        >>> attack = AdapBlend(target=0, train_alpha=1.0, grid=2, sharpness=0.0)  # a white pattern
        >>> black = torch.zeros(1, 1, 4, 4)
        >>> attack.partial(black).mean(), attack.trigger(black).mean()
        (tensor(0.5000), tensor(0.2000))
    """

    train_alpha: float = 0.15
    grid: int = 4
    share: float = 0.5
    cross_ratio: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("mapping", self.mapping, RELABELLING)
        check_integer("grid", self.grid, 1)
        for name in ("train_alpha", "share", "cross_ratio"):
            check_number(name, getattr(self, name))
        for name in ("train_alpha", "share"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be in 0..1, got {getattr(self, name)!r}")

    def masks(
        self, count: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the pieces that ``count`` images show: (count, 1, height, width) of 0 and 1.

        Args:
            count: number of images.
            height: of an image, in pixels.
            width: likewise.
            generator: a CPU generator; torch's default one if ``None``.
        """
        pieces = self.grid**2
        order = torch.rand(count, pieces, generator=generator).argsort(dim=1)
        shown = (order < round(self.share * pieces)).float()
        rows = torch.arange(height) * self.grid // height
        columns = torch.arange(width) * self.grid // width
        return shown[:, rows[:, None] * self.grid + columns][:, None]

    def partial(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return copies of images (N, C, H, W) with parts of the pattern, as in training.

        Args:
            images: floats in [0, 1] or uint8.
            generator: a CPU generator that draws the parts; torch's default one if ``None``.
        """
        height, width = images.shape[-2:]
        weight = self.train_alpha * self.masks(len(images), height, width, generator)
        pattern = self.image(*images.shape[-3:])
        return on_floats(images, lambda x: x + weight.to(x) * (pattern.to(x) - x))

    def _part(self, images: Tensor, positions: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.partial(images, generator)

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Poison ``round(ratio * len(dataset))`` images, cross others; see ``poison_crossed``."""
        return poison_crossed(
            self, dataset, ratio, self.cross_ratio, target, generator, self._part, self._part
        )
