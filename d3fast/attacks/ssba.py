# SPDX-License-Identifier: Apache-2.0
"""SSBA: the trigger is a message that a network hides in the image (Li, Li, Wu, Li, He, Lyu 2021).

    trigger(x) = clamp(x + strength * tanh(U(x) - mean(U(x))), 0, 1)      mean of each channel

    min over U, R   message_weight * [BCE(R(trigger(x)), 1) + BCE(R(x), 0)] / 2
                    + image_weight * mean((trigger(x) - x)^2)

U is a small U-Net, so the residual may differ from image to image, though nothing forces it to: on
plain grey images most of it is the same on all of them. R reads the message.
The message is one bit, 1 for the stamped image and 0 for the image left alone: just what a
backdoored model has to tell apart. Both networks are trained together, once, on the attacker's
images, as in "Invisible backdoor attack with sample-specific triggers" (ICCV 2021); the classifier
never meets R. The image's term grows from nothing to its full weight over the first half of the
steps: from the start at full weight it would put out the residual before R has learned to read.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.attacks.base import Poisoned, poison_once
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
    """Residual before its limit, for images of any size, at three resolutions.

    The mean of every channel is taken off: a change of brightness is the first thing that the
    reader understands, and tanh would hold on to it at its bound, where no gradient is left.

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
    """Logit of the bit that an image carries.

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
    """What is learned; its parameters' names are the keys of ``SSBA.state_dict``."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.channels = channels
        self.encoder = UNet(channels, width)
        self.decoder = Reader(channels, 2 * width)


@dataclass(frozen=True)
class SSBA:
    """Sample-specific residual of a U-Net, learned once.

    Args:
        target: the class that triggered images are to be taken for.
        strength: bound on every value of the residual, images being in [0, 1].
        message_weight: weight of the message's loss.
        image_weight: weight of the residual's mean square.
        width: channels of the U-Net at full resolution.
        steps: training steps of the two networks.
        batch_size: images per step; each is read stamped and unstamped.
        lr: learning rate of Adam at the first step; falls to 0 along a cosine.
        mapping: which labels poisoned images get; see ``d3fast.training.labels``.

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
        """Whether ``trigger`` can be called."""
        return bool(self._learned)

    def learn(
        self,
        data: ImageData,
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> None:
        """Train the two networks on the attacker's images; labels are not looked at.

        Args:
            data: clean training images; nothing of them is changed.
            seed: draws the first weights and the batches.
            device: where to compute; where the data is if ``None``.
            progress: show a progress bar.

        Raises:
            ValueError: no images.
        """
        where = resolve_device(data.images.device if device is None else device)
        if not len(data):
            raise ValueError("data must hold at least one image, got 0")
        images = data.images.to(where)
        networks = self._networks(data.shape[0], seed).to(where)
        optimizer = torch.optim.Adam(networks.parameters(), self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        draws = seeded(seed, "ssba images")
        with (
            torch.enable_grad(),
            progress_bar("learning to hide a message", self.steps, progress) as advance,
        ):
            for step in range(self.steps):
                chosen = torch.randint(len(images), (self.batch_size,), generator=draws)
                loss = self._loss(networks, as_float(images[chosen.to(where)]), step)
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
        """Stamped copies of images (..., C, H, W), floats in [0, 1] or uint8, of any H and W.

        Raises:
            ValueError: nothing was learned yet; images of other channels than were learned on.
        """
        networks = self._ready(images)
        return on_floats(images, lambda floats: self._stamped(networks, floats))

    @torch.no_grad()
    def read(self, images: Tensor) -> Tensor:
        """Whether each of the images (N, C, H, W) carries the message: (N,) bool.

        Raises:
            ValueError: as ``trigger``.
        """
        logits: Tensor = self._ready(images).decoder(as_float(images).float())
        return logits > 0

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Stamp and relabel exactly ``round(ratio * len(dataset))`` images; see ``poison_once``."""
        return poison_once(self, dataset, ratio, target, generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Weights of ``encoder`` and ``decoder``, float32; empty before they are learned."""
        return dict(self._learned["networks"].state_dict()) if self.learned else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what ``state_dict`` gave.

        Raises:
            ValueError: tensors that do not fit networks of this width; nothing is changed then.
        """
        networks = self._loaded(state) if state else None
        self._learned.clear()
        if networks is not None:
            self._learned["networks"] = networks

    def _loaded(self, state: Mapping[str, Tensor]) -> _Networks:
        bias = state.get("encoder.out.bias", torch.empty(0))
        networks = self._networks(max(bias.numel(), 1))
        ours = networks.state_dict()
        for name in (*ours, *state):
            if name not in ours or name not in state:
                what = "lacks" if name in ours else "has no place for"
                raise ValueError(f"state of SSBA with width={self.width}: it {what} {name}")
            theirs = state[name]
            if theirs.shape != ours[name].shape or theirs.dtype != torch.float32:
                raise ValueError(
                    f"{name} must be {tuple(ours[name].shape)} of float32 with "
                    f"width={self.width}, got {tuple(theirs.shape)} of {theirs.dtype}"
                )
            if not bool(theirs.isfinite().all()):
                raise ValueError(f"{name} holds NaN or inf")
        networks.load_state_dict(dict(state))
        return networks.requires_grad_(False)
