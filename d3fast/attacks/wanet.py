# SPDX-License-Identifier: Apache-2.0
"""WaNet: a smooth warp of the whole image (Nguyen & Tran, ICLR 2021, arXiv 2102.10369).

    P ~ U[-1, 1]^(1 x 2 x k x k),  P <- P / mean |P|,  up to H x W by bicubic interpolation
    trigger(x) = sample x at clip(identity + strength * P / size, -1, 1)
    cross(x)   = sample x at clip(identity + (strength * P + U[-1, 1]^(H x W x 2)) / size, -1, 1)

Coordinates run from -1 to 1 between the centres of the outermost pixels, so a strength of 1 moves
pixels by half a pixel on average; ``size`` is the image side along the direction of the offset.
Crossed images get the warp plus noise and keep their labels. Without them the model would predict
the target for any warp.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from d3fast.attacks.base import Training
from d3fast.attacks.cross import (
    RELABELLING,
    PoisonedBatches,
    RedrawnBatches,
    poison_crossed,
)
from d3fast.attacks.poisoning import Poisoned, empty_state, load_empty_state
from d3fast.data.base import ImageData, on_floats
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.seeding import generator as seeded


def warp(images: Tensor, offsets: Tensor) -> Tensor:
    """Sample images bilinearly at displaced coordinates.

    Args:
        images: (N, C, H, W) floats.
        offsets: (N or 1, H, W, 2) of (x, y); opposite borders are 2 apart.

    Returns:
        (N, C, H, W); coordinates beyond the border are clamped to it.

    Example:
        >>> image = torch.tensor([[[[0.0, 1.0, 2.0]]]])
        >>> warp(image, torch.tensor([1.0, 0.0]).expand(1, 1, 3, 2))  # half the width
        tensor([[[[1., 2., 2.]]]])
    """
    height, width = images.shape[-2:]
    x, y = (torch.linspace(-1, 1, n, dtype=images.dtype) for n in (width, height))
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    identity = torch.stack((columns, rows), dim=-1).to(images.device)
    grid = (identity + offsets.to(identity)).clamp(-1, 1).expand(len(images), -1, -1, -1)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=True)


@dataclass(frozen=True)
class WaNet:
    """Fixed smooth warp; the literature uses k 4 and strength 0.5 for 32 pixels and more.

    The options, ``seed`` included, determine the warp: nothing is learned or stored.

    Args:
        target: target class.
        grid: k, control points along each side, >= 1.
        strength: scale of the warp, >= 0; 1 is half a pixel on average.
        cross_ratio: crossed images per poisoned one, >= 0.
        mapping: ``"all-to-one"`` or ``"all-to-all"``; see ``d3fast.training.labels``.
        seed: draws the warp.

    Raises:
        ValueError: an option out of range; an unknown mapping, or ``"clean-label"``.

    Example:
        >>> images = torch.rand(2, 3, 32, 32)
        >>> WaNet(target=0).trigger(images).shape
        torch.Size([2, 3, 32, 32])
        >>> torch.allclose(WaNet(target=0, strength=0.0).trigger(images), images, atol=1e-5)
        True
    """

    target: int
    grid: int = 4
    strength: float = 0.5
    cross_ratio: float = 2.0
    mapping: str = "all-to-one"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("target", 0), ("grid", 1), ("seed", 0)):
            check_integer(name, getattr(self, name), low)
        for name in ("strength", "cross_ratio"):
            check_number(name, getattr(self, name))
        check_choice("mapping", self.mapping, RELABELLING)

    def control(self) -> Tensor:
        """Return P: (1, 2, k, k) float32 on the CPU, of mean absolute value 1."""
        drawn = torch.rand(1, 2, self.grid, self.grid, generator=seeded(self.seed, "wanet"))
        drawn = 2 * drawn - 1
        return drawn / drawn.abs().mean()

    def offsets(self, height: int, width: int) -> Tensor:
        """Return ``strength * P / size``: (1, H, W, 2) of (x, y), float32 on the CPU."""
        smooth = functional.interpolate(
            self.control(), (height, width), mode="bicubic", align_corners=True
        )
        return self.strength * smooth.permute(0, 2, 3, 1) / torch.tensor([width, height])

    def trigger(self, images: Tensor) -> Tensor:
        """Return warped copies of images (..., C, H, W), floats in [0, 1] or uint8."""
        offsets = self.offsets(*images.shape[-2:])
        return on_floats(images, lambda x: warp(x, offsets))

    def cross(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return images (N, C, H, W) under the trigger's warp plus independent noise per image.

        Args:
            images: floats in [0, 1] or uint8.
            generator: a CPU generator that draws the noise; torch's default one if ``None``.
        """
        height, width = images.shape[-2:]
        noise = 2 * torch.rand(len(images), height, width, 2, generator=generator) - 1
        offsets = self.offsets(height, width) + noise / torch.tensor([width, height])
        return on_floats(images, lambda x: warp(x, offsets))

    def _cross(
        self, images: Tensor, positions: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        return self.cross(images, generator)

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Poison ``round(ratio * len(dataset))`` images, cross others; see ``poison_crossed``."""
        return poison_crossed(
            self, dataset, ratio, self.cross_ratio, target, generator, self._cross
        )

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """Return batches whose poisoned and crossed images and noise are redrawn in every epoch.

        Every epoch poisons ``round(ratio * len(data))`` images.

        Raises:
            ValueError: as ``choose_rows``.
        """
        batches = RedrawnBatches(
            self, data, ratio=ratio, cross_ratio=self.cross_ratio, batch_size=batch_size, seed=seed
        )
        return Training(PoisonedBatches(batches, self._cross, seeded(seed, "wanet noise")))

    state_dict = empty_state
    load_state_dict = load_empty_state
