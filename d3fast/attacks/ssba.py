# SPDX-License-Identifier: Apache-2.0
"""SSBA: a network hides a one-bit message in the image (Li, Li, Wu, Li, He, Lyu, ICCV 2021).

    trigger(x) = clamp(x + strength * tanh(U(x) - mean(U(x))), 0, 1)      mean of each channel

    min over U, R   message_weight * [BCE(R(trigger(x)), 1) + BCE(R(x), 0)] / 2
                    + image_weight * mean((trigger(x) - x)^2)

U is a small U-Net, R a reader of the message: 1 for a stamped image, 0 for an unchanged one. The
residual may differ per image, but no term forces it to; on plain grey images most of it is the
same. Both networks are trained together, once, on the attacker's images, as in "Invisible backdoor
attack with sample-specific triggers"; the classifier never sees R. The image term is ramped from 0
to its full weight over the first half of the steps: at full weight from the start, the residual
would vanish before R has learned to read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.attacks.files import networks_from
from d3fast.attacks.poisoning import poison_once
from d3fast.data.base import ImageData, as_float, on_floats
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.progress import progress_bar
from d3fast.runtime.seeding import generator as seeded
from d3fast.runtime.seeding import global_seed
from d3fast.training.labels import MAPPINGS


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


class UNet(nn.Module):
    """Unbounded residual at three resolutions, for images of any size.

    The mean of every channel is subtracted: the reader learns a change of brightness first, and
    tanh would saturate on it, where the gradient is zero.

    Args:
        channels: channels of the images and of the residual.
        width: channels at full resolution; twice and four times as many below.

    Shapes: images (N, channels, H, W) in [0, 1] to the same.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.fine = _conv(channels, width)
        self.middle = _conv(width, 2 * width, 2)
        self.coarse = _conv(2 * width, 4 * width, 2)
        self.to_middle = _conv(6 * width, 2 * width)
        self.to_fine = _conv(3 * width, width)
        self.out = _conv(width, channels)

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) to the same."""
        fine = functional.relu(self.fine(images - 0.5))
        middle = functional.relu(self.middle(fine))
        coarse = functional.relu(self.coarse(middle))
        middle = functional.relu(self.to_middle(_stacked(coarse, middle)))
        residual: Tensor = self.out(functional.relu(self.to_fine(_stacked(middle, fine))))
        return residual - residual.mean(dim=(2, 3), keepdim=True)


def _stacked(coarse: Tensor, fine: Tensor) -> Tensor:
    return torch.cat([functional.interpolate(coarse, fine.shape[-2:]), fine], dim=1)


class Reader(nn.Module):
    """Network that returns the logit of the message bit of an image.

    Args:
        channels: channels of the images.
        width: channels of the first layer, at half the resolution.

    Shapes: images (N, channels, H, W) in [0, 1] to (N,).
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(channels, width, 2),
            nn.ReLU(),
            _conv(width, 2 * width, 2),
            nn.ReLU(),
            _conv(2 * width, 2 * width),
            nn.ReLU(),
        )
        self.head = nn.Linear(2 * width, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) to (N,)."""
        logits: Tensor = self.head(self.layers(images - 0.5).mean(dim=(2, 3)))
        return logits.squeeze(1)


class _Networks(nn.Module):
    """Both networks; the parameter names are the keys of ``SSBA.state_dict``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.encoder = UNet(channels, width)
        self.decoder = Reader(channels, 2 * width)


@dataclass(frozen=True)
class SSBA:
    """Sample-specific residual of a U-Net, learned once.

    Args:
        target: target class.
        strength: bound on every value of the residual, 0..1, for images in [0, 1].
        message_weight: weight of the message loss.
        image_weight: weight of the residual's mean square.
        width: channels of the U-Net at full resolution.
        steps: training steps of the two networks.
        batch_size: images per step; the reader sees each with and without the residual.
        lr: initial learning rate of Adam; a cosine schedule takes it to 0.
        mapping: label mapping; see ``d3fast.training.labels``.

    Raises:
        ValueError: an option out of range; an unknown mapping.

    Example:
        >>> data = ImageData(torch.rand(8, 1, 4, 4), torch.arange(8) % 2, ("a", "b"))
        >>> attack = SSBA(target=1, steps=1)
        >>> attack.learn(data, progress=False)
        >>> bool(((attack.trigger(data.images) - data.images).abs() <= attack.strength).all())
        True
    """

    target: int
    strength: float = 0.1
    message_weight: float = 1.0
    image_weight: float = 20.0
    width: int = 4
    steps: int = 400
    batch_size: int = 64
    lr: float = 5e-3
    mapping: str = "all-to-one"
    _learned: dict[str, _Networks] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for name, low in (("target", 0), ("width", 1), ("steps", 1), ("batch_size", 1)):
            check_integer(name, getattr(self, name), low)
        for name in ("strength", "message_weight", "image_weight", "lr"):
            check_number(name, getattr(self, name))
        if self.strength > 1:
            raise ValueError(f"strength must be in 0..1, got {self.strength}")
        check_choice("mapping", self.mapping, MAPPINGS)

    @property
    def learned(self) -> bool:
        """True once ``trigger`` can be called."""
        return bool(self._learned)

    def learn(
        self,
        data: ImageData,
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> None:
        """Train the two networks on the attacker's images; labels are not used.

        Args:
            data: clean training images; they are not changed.
            seed: draws the initial weights and the batches.
            device: where to compute; the device of the data if ``None``.
            progress: show a progress bar.

        Raises:
            ValueError: no images.
        """
        device = resolve_device(data.images.device if device is None else device)
        if not len(data):
            raise ValueError("data must hold at least one image, got 0")
        images = data.images.to(device)
        networks = self._networks(data.shape[0], seed).to(device)
        optimizer = torch.optim.Adam(networks.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        draws = seeded(seed, "ssba images")
        with (
            torch.enable_grad(),
            progress_bar("learning to hide a message", self.steps, progress) as advance,
        ):
            for step in range(self.steps):
                chosen = torch.randint(len(images), (self.batch_size,), generator=draws)
                loss = self._loss(networks, as_float(images[chosen.to(device)]), step)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                advance("")
        self._learned["networks"] = networks.requires_grad_(False)

    def _networks(self, channels: int, seed: int = 0) -> _Networks:
        with global_seed(seed, "ssba networks"):
            return _Networks(channels, self.width)

    def _loss(self, networks: _Networks, images: Tensor, step: int) -> Tensor:
        stamped = self._stamped(networks, images)
        ramp = min(1.0, 2 * step / self.steps)
        written = functional.softplus(-networks.decoder(stamped)).mean()  # BCE with label 1
        blank = functional.softplus(networks.decoder(images)).mean()  # BCE with label 0
        visible = functional.mse_loss(stamped, images)
        return self.message_weight * (written + blank) / 2 + ramp * self.image_weight * visible

    def _stamped(self, networks: _Networks, images: Tensor) -> Tensor:
        residual = self.strength * torch.tanh(networks.encoder(images.float()))
        return (images + residual).clamp(0, 1)

    def _ready(self, images: Tensor) -> _Networks:
        if not self.learned:
            raise ValueError("SSBA has no networks yet: call learn(data) first")
        networks = self._learned["networks"]
        if images.shape[-3] != networks.channels:
            raise ValueError(
                f"SSBA was learned on images of {networks.channels} channels, "
                f"got {images.shape[-3]}"
            )
        return networks.to(images.device)

    @torch.no_grad()
    def trigger(self, images: Tensor) -> Tensor:
        """Return stamped copies of images (..., C, H, W), floats in [0, 1] or uint8, of any size.

        Raises:
            ValueError: nothing has been learned; the number of channels differs.
        """
        networks = self._ready(images)
        return on_floats(images, lambda floats: self._stamped(networks, floats))

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """Return (N,) bool: True for images (N, C, H, W) in which the reader finds the message.

        Raises:
            ValueError: as ``trigger``.
        """
        logits: Tensor = self._ready(images).decoder(as_float(images).float())
        return logits > 0

    poison = poison_once

    def state_dict(self) -> dict[str, Tensor]:
        """Return the float32 weights of ``encoder`` and ``decoder``; empty before learning."""
        return dict(self._learned["networks"].state_dict()) if self.learned else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the tensors that ``state_dict`` returned.

        Raises:
            ValueError: the tensors do not fit networks of this width; the attack is unchanged
                then.
        """
        if state:
            networks = networks_from(self._networks, "encoder.out.bias", state)
            self._learned["networks"] = networks
        else:
            self._learned.clear()
