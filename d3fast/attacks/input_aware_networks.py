# SPDX-License-Identifier: Apache-2.0
"""Networks of the Input-aware attack: a generator of patterns and a generator of masks.

    g: C x H x W -> pattern C x H x W        m: C x H x W -> mask 1 x H x W

Both are fully convolutional, so one pair serves images of any size; see ``input_aware``.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.data.base import ImageData, as_float
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator as seeded

_DENSITY_WEIGHT = 100.0
_EPSILON = 1e-3  # keeps the distance of two equal patterns above 0


class ImageToImage(nn.Module):
    """Encoder-decoder with two downsampling stages and a tanh output; sides of 8 pixels and more.

    Group norm instead of batch norm, so that an output does not depend on the rest of the batch.

    Args:
        inputs: channels of the images.
        outputs: channels of the outputs.
        width: channels of the first stage.

    Shapes: (N, inputs, H, W) to (N, outputs, H, W) in [0, 1].
    """

    def __init__(self, inputs: int, outputs: int, width: int) -> None:
        super().__init__()
        self.down1 = nn.Conv2d(inputs, width, 3, stride=2, padding=1)
        self.down2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.up1 = nn.Conv2d(2 * width, width, 3, padding=1)
        self.up2 = nn.Conv2d(width, outputs, 3, padding=1)
        self.norm1, self.norm3 = nn.GroupNorm(1, width), nn.GroupNorm(1, width)
        self.norm2 = nn.GroupNorm(1, 2 * width)

    def forward(self, images: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        fine = functional.relu(self.norm1(self.down1(images - 0.5)))
        coarse = functional.relu(self.norm2(self.down2(fine)))
        back = functional.interpolate(coarse, size=fine.shape[-2:])
        back = functional.relu(self.norm3(self.up1(back)))
        output: Tensor = self.up2(functional.interpolate(back, size=images.shape[-2:]))
        return 0.5 + 0.5 * torch.tanh(output)


class Networks(nn.Module):
    """Generator and mask network of one attack.

    Args:
        channels: C of the images.
        width: of both networks.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.generator = ImageToImage(channels, channels, width)
        self.mask = ImageToImage(channels, 1, width)

    def masks(self, images: Tensor) -> Tensor:
        """Return masks (N, 1, H, W): the outputs, sharpened around a threshold of 1/2."""
        return 0.5 + 0.5 * torch.tanh(20 * self.mask(images) - 10)


def blend(images: Tensor, patterns: Tensor, masks: Tensor) -> Tensor:
    """Return ``x (1 - m) + p m``: images and patterns (N, C, H, W), masks (N, 1, H, W)."""
    return images * (1 - masks) + patterns * masks


def diversity(images: Tensor, outputs: Tensor) -> Tensor:
    """Compute the mean of ``|x - x'| / |f(x) - f(x')|`` over neighbours in a batch (RMS norms).

    Args:
        images: (N, C, H, W).
        outputs: (N, c, H, W), a network's outputs for them.

    Returns:
        0-dim; small where different images get different outputs.

    Example:
        >>> images = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
        >>> round(float(diversity(images, 0.5 * images)), 2)
        2.0
    """

    def distance(values: Tensor) -> Tensor:
        # The epsilon also stands under the root, whose derivative at zero is infinite.
        return ((values - values.roll(1, 0)).square().flatten(1).mean(1) + _EPSILON**2).sqrt()

    return (distance(images) / (distance(outputs) + _EPSILON)).mean()


def stamp(networks: Networks, images: Tensor, sources: Tensor) -> Tensor:
    """Return images with the triggers of ``sources``, both (N, C, H, W) floats."""
    single = sources.float()
    patterns, masks = networks.generator(single), networks.masks(single)
    return blend(images, patterns.to(images), masks.to(images))


@torch.enable_grad()
def train_mask(
    networks: Networks,
    data: ImageData,
    *,
    density: float,
    steps: int,
    lr: float,
    batch_size: int,
    seed: int,
    progress: bool,
) -> None:
    """Train the mask network on clean images, without a classifier, and freeze it.

    Args:
        networks: on the data's device.
        data: images in [0, 1] or uint8.
        density: share of the pixels that a mask may cover.
        steps: number of batches.
        lr: Adam's learning rate.
        batch_size: images per batch, drawn with replacement.
        seed: draws them.
        progress: show a progress bar.
    """
    optimizer = torch.optim.Adam(networks.mask.parameters(), lr)
    draw = seeded(seed, "mask network")
    count = min(batch_size, len(data))
    with progress_bar("training the mask", steps, progress) as advance:
        for _ in range(steps):
            chosen = torch.randint(len(data), (count,), generator=draw)
            images = as_float(data.images[chosen.to(data.images.device)])
            masks = networks.masks(images)
            excess = (masks.flatten(1).mean(1) - density).relu().mean()
            optimizer.zero_grad()
            (diversity(images, masks) + _DENSITY_WEIGHT * excess).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            advance("")
    networks.mask.requires_grad_(False)
