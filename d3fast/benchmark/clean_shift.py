# SPDX-License-Identifier: Apache-2.0
"""Clean samples that are not a fair draw: one class is rare, or the images are of another kind.

A defender's samples are few, and nobody promises that they are balanced or that they look like the
data of the training. ``CleanShift`` changes the samples that a defence receives, held-out ones
included; the test images stay as they are. The corruptions are three of the kinds that Hendrycks
and Dietterich (*Benchmarking Neural Network Robustness to Common Corruptions and Perturbations*,
ICLR 2019) compare, at strengths chosen here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from d3fast.data import ImageData
from d3fast.data.base import on_floats
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.runtime.seeding import generator

Corruption = Callable[[Tensor, torch.Generator], Tensor]
_KEPT = 0.1  # share of a rare class


def _noise(images: Tensor, draws: torch.Generator) -> Tensor:
    return images + 0.2 * torch.randn(images.shape, generator=draws).to(images)


def _blur(images: Tensor, draws: torch.Generator) -> Tensor:
    return avg_pool2d(pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _contrast(images: Tensor, draws: torch.Generator) -> Tensor:
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + 0.3 * (images - mean)


# Of images (N, C, H, W) in [0, 1]: white noise, the mean of 3 x 3 pixels, 0.3 of the contrast.
CORRUPTIONS: Mapping[str, Corruption] = MappingProxyType(
    {"noise": _noise, "blur": _blur, "contrast": _contrast}
)


@dataclass(frozen=True)
class CleanShift:
    """What is unusual about a defender's clean samples.

    Args:
        rare_class: a class of which one sample in ten is left.
        corruption: a name of ``CORRUPTIONS``, applied to every image.

    Raises:
        ValueError: nothing is shifted; a negative class; an unknown corruption.

    Example:
        >>> data = ImageData(torch.rand(40, 1, 2, 2), torch.arange(40) % 2, ("a", "b"))
        >>> CleanShift(rare_class=1).apply(data, seed=0).labels.bincount().tolist()
        [20, 2]
    """

    rare_class: int | None = None
    corruption: str | None = None

    def __post_init__(self) -> None:
        if self.rare_class is None and self.corruption is None:
            raise ValueError("a shift needs rare_class or corruption, got neither")
        if self.rare_class is not None:
            check_integer("rare_class", self.rare_class, 0)
        if self.corruption is not None:
            check_choice("corruption", self.corruption, CORRUPTIONS)

    def apply(self, data: ImageData, seed: int) -> ImageData:
        """Return the samples that are left, in their order, corrupted.

        Args:
            data: clean samples.
            seed: draws the samples of the rare class, of which at least one is left, and the noise.

        Raises:
            ValueError: a rare class that the data lacks.
        """
        if self.rare_class is not None:
            data = data.subset(_without_most(data, self.rare_class, seed))
        if self.corruption is None:
            return data
        corrupt, draws = CORRUPTIONS[self.corruption], generator(seed, "corruption")
        images = on_floats(data.images, lambda floats: corrupt(floats, draws))
        return ImageData(images, data.labels, data.classes)


def _without_most(data: ImageData, label: int, seed: int) -> Tensor:
    """Return the indices of all samples but nine in ten of a class."""
    (own,) = (data.labels == label).cpu().nonzero(as_tuple=True)
    if not len(own):
        raise ValueError(f"rare_class must be a class with samples, got {label}")
    order = own[torch.randperm(len(own), generator=generator(seed, "rare class"))]
    keep = torch.ones(len(data), dtype=torch.bool)
    keep[order[max(1, round(_KEPT * len(own))) :]] = False
    return keep.nonzero(as_tuple=True)[0]
