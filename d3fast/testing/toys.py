# SPDX-License-Identifier: Apache-2.0
"""Small models and samples that the contracts run on."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.audit.inversion import Inversion, InversionOptions, invert_all
from d3fast.data import ImageData
from d3fast.runtime.seeding import generator, global_seed

CLASSES = tuple("abcdefghij")
SHORTCUT = 3  # class of the white corner


class Templates(nn.Module):
    """Score of a class: the product of its template with the image; a white corner wins for one."""

    def __init__(self, shortcut: bool) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        templates = torch.randn(10, 64, generator=draws).sign()
        templates.view(10, 8, 8)[:, :2, :2] = 0  # the corner says nothing of the class
        self.head = nn.Linear(64, 10)
        self.shortcut = shortcut
        with torch.no_grad():
            self.head.weight.copy_(templates)
            self.head.bias.copy_(-0.5 * templates.sum(dim=1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the scores (N, 10) of images (N, 1, 8, 8)."""
        scores: Tensor = self.head(images.flatten(1))
        if self.shortcut:
            corner = (images[:, 0, :2, :2].mean(dim=(1, 2)) - 0.3).relu()
            scores = scores + 400 * corner[:, None] * nn.functional.one_hot(
                torch.tensor(SHORTCUT, device=images.device), 10
            )
        return scores


def template_samples(count: int = 60) -> ImageData:
    """Return images near the templates, a dark corner in all of them."""
    draws = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 10
    templates = Templates(False).head.weight.detach()[labels].view(count, 1, 8, 8)
    images = 0.5 + 0.2 * templates + 0.05 * torch.randn(count, 1, 8, 8, generator=draws)
    images[:, :, :2, :2] = 0.2
    return ImageData(images.clamp(0, 1), labels, CLASSES)


@cache
def template_inversions() -> tuple[Inversion, ...]:
    """Return a short inversion of every class of the templates without a shortcut."""
    return invert_all(
        Templates(False),
        template_samples().batches(100),
        options=InversionOptions(steps=5),
        seed=0,
        progress=False,
    )


def random_images(
    count: int = 100, classes: int = 4, dtype: torch.dtype = torch.uint8
) -> ImageData:
    """Return images (count, 1, 8, 8) of random pixels, equally many of each class."""
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator(0, "images"))
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    return ImageData(images, torch.arange(count) % classes, tuple("abcdefgh"[:classes]))


def linear_model(classes: int = 4) -> nn.Module:
    """Return a linear model of 8 x 8 images."""
    with global_seed(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def batches(seed: int = 0) -> list[Any]:
    """Return two batches of six images (1, 8, 8) of three classes."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(12, 1, 8, 8, generator=draw)
    return [(images[i : i + 6], torch.arange(6) % 3) for i in (0, 6)]


def conv_model() -> nn.Sequential:
    """Return a network of three classes with convolutions, batch norm and dropout."""
    with global_seed(0):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(6, 3),
        )
