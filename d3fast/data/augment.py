# SPDX-License-Identifier: Apache-2.0
"""Random crops, flips and rotations of a batch, on the batch's device.

Every image has its own draw: first a rotation by an angle from -r to r, then a shift by up to
``crop`` pixels in each direction (a random crop of the padded image), then a horizontal flip with
probability 1/2. Draws come from a CPU generator, so they are equal on every device; the work is two
gathers and one ``grid_sample``.

``AUGMENTATIONS`` holds the usual choices for the data sets of the registry (padding, flips: He et
al. 2016 for CIFAR; no flips of digits and road signs, whose mirror image means something else).
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional

from d3fast.runtime.checks import check_choice, check_integer, check_number

PADDINGS = ("zeros", "reflect")


@dataclass(frozen=True)
class Augment:
    """Rotate, shift and flip every image of a batch by its own draw.

    Args:
        crop: maximal shift in pixels; 0 for none.
        flip: flip images horizontally with probability 1/2.
        rotation: maximal angle in degrees; 0 for none.
        padding: values outside the image: ``"zeros"`` (black) or ``"reflect"`` (the image mirrored
            at its border pixels).

    Raises:
        ValueError: a number out of range, an unknown padding.

    Example:
        >>> images = torch.arange(4.0).reshape(1, 1, 1, 4) / 4
        >>> Augment(crop=0)(images, torch.Generator().manual_seed(0))
        tensor([[[[0.7500, 0.5000, 0.2500, 0.0000]]]])
    """

    crop: int = 4
    flip: bool = True
    rotation: float = 0.0
    padding: str = "zeros"

    def __post_init__(self) -> None:
        check_integer("crop", self.crop, 0)
        check_number("rotation", self.rotation)
        if self.rotation > 180:
            raise ValueError(f"rotation must be <= 180, got {self.rotation}")
        check_choice("padding", self.padding, PADDINGS)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return augmented copies of a batch.

        Args:
            images: (N, C, H, W), float in [0, 1] or uint8.
            generator: a CPU generator.

        Returns:
            A batch of the same shape, dtype and device. Without rotation every value is one of the
            image's own, or 0. If nothing is switched on, it is the batch itself.

        Raises:
            ValueError: not a batch of images, or images too small for ``"reflect"`` padding; a
                generator of another device.
        """
        if images.ndim != 4 or not (images.is_floating_point() or images.dtype == torch.uint8):
            raise ValueError(
                "images must be (N, C, H, W) of float or uint8, got shape "
                f"{tuple(images.shape)} of {images.dtype}"
            )
        if generator.device.type != "cpu":
            raise ValueError(f"generator must be one of the CPU, got one of {generator.device}")
        if self.padding == "reflect" and self.crop >= min(images.shape[2:]):
            height, width = images.shape[2:]
            raise ValueError(f"crop={self.crop} cannot be mirrored in {height}x{width} images")
        count = len(images)
        if not count:
            return images
        if self.rotation:
            draws = torch.rand(count, generator=generator) * 2 - 1
            images = rotate(images, draws * self.rotation, self.padding)
        down = right = torch.zeros(count, dtype=torch.long)
        if self.crop:
            span = 2 * self.crop + 1
            down, right = torch.randint(span, (2, count), generator=generator) - self.crop
        flipped = torch.zeros(count, dtype=torch.bool)
        if self.flip:
            flipped = torch.rand(count, generator=generator) < 0.5
        if not (self.crop or self.flip):
            return images
        return shift_and_flip(images, down, right, flipped, self.padding)


@dataclass(frozen=True, eq=False)
class Augmented:
    """A loader that augments the images of another loader, with new draws in every pass.

    Args:
        loader: yields (images, labels); see ``Augment`` for the images.
        augment: the augmentation of a batch.
        draws: a CPU generator of its own, so that the loader's order does not depend on it.

    Example:
        >>> draws = torch.Generator().manual_seed(0)
        >>> batches = [(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]))]
        >>> [labels.tolist() for _, labels in Augmented(batches, Augment(), draws)]
        [[0, 1]]
    """

    loader: Iterable[tuple[Tensor, Tensor]]
    augment: Augment
    draws: torch.Generator

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self.loader:
            yield self.augment(images, self.draws), labels


def shift_and_flip(
    images: Tensor, down: Tensor, right: Tensor, flipped: Tensor, padding: str = "zeros"
) -> Tensor:
    """Shift every image by its own number of pixels, then flip some horizontally.

    Args:
        images: (N, C, H, W).
        down: (N,) int64, rows to move by; negative moves up.
        right: (N,) int64, columns to move by; negative moves to the left.
        flipped: (N,) bool, images to flip.
        padding: as for ``Augment``.

    Returns:
        A new tensor like ``images``.

    Example:
        >>> one, no = torch.tensor([1]), torch.tensor([False])
        >>> shift_and_flip(torch.tensor([[[[1.0, 2.0, 3.0]]]]), one * 0, one, no)
        tensor([[[[0., 1., 2.]]]])
    """
    channels, height, width = images.shape[1:]
    device = images.device
    rows = torch.arange(height) - down[:, None]  # (N, H): the row that each row comes from
    columns = torch.arange(width) - right[:, None]
    columns = torch.where(flipped[:, None], columns.flip(1), columns)
    rows, row_inside = _inside(rows.to(device), height, padding)
    columns, column_inside = _inside(columns.to(device), width, padding)
    moved = images.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width))
    moved = moved.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))
    if padding == "zeros":
        moved *= (row_inside[:, None, :, None] & column_inside[:, None, None, :]).to(moved.dtype)
    return moved


def _inside(index: Tensor, size: int, padding: str) -> tuple[Tensor, Tensor]:
    """Return valid indices, and a mask of those that were inside the image before."""
    inside = (index >= 0) & (index < size)
    if padding == "reflect":
        return (size - 1) - ((size - 1) - index.abs()).abs(), inside
    return index.clamp(0, size - 1), inside


def rotate(images: Tensor, degrees: Tensor, padding: str = "zeros") -> Tensor:
    """Rotate every image around its centre by its own angle, counter-clockwise, bilinearly.

    Args:
        images: (N, C, H, W), float in [0, 1] or uint8.
        degrees: (N,) floats.
        padding: as for ``Augment``.

    Returns:
        A new tensor like ``images``; uint8 is rounded.

    Example:
        >>> images = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
        >>> rotate(images, torch.tensor([90.0]))
        tensor([[[[2, 4],
                  [1, 3]]]], dtype=torch.uint8)
    """
    height, width = images.shape[2:]
    angle = degrees.to(torch.float64) * (math.pi / 180)
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Coordinates run from -1 to 1 on both sides, whatever their lengths.
    theta = torch.stack(
        (cos, -sin * height / width, none, sin * width / height, cos, none), dim=1
    ).reshape(-1, 2, 3)
    values = images if images.is_floating_point() else images.float()
    theta = theta.to(values.device, values.dtype)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    border = "zeros" if padding == "zeros" else "reflection"
    turned = functional.grid_sample(values, grid, "bilinear", border, align_corners=False)
    if images.is_floating_point():
        return turned.clamp_(0, 1)  # sums of weights are off by a rounding
    return turned.round_().clamp_(0, 255).to(torch.uint8)


AUGMENTATIONS: Mapping[str, Augment] = MappingProxyType(
    {
        "digits": Augment(crop=1, flip=False),
        "fashion-mnist": Augment(crop=2),
        "cifar10": Augment(crop=4),
        "cifar100": Augment(crop=4),
        "gtsrb": Augment(crop=4, flip=False, rotation=10.0),
        "tiny-imagenet": Augment(crop=8),
    }
)
