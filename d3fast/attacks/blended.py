# SPDX-License-Identifier: Apache-2.0
"""Blended: a faint pattern over the whole image (Chen, Liu, Li, Lu, Song 2017, arXiv 1712.05526).

    trigger(x) = (1 - alpha) x + alpha P

The paper blends in a photograph. Here P is a formula in the pixels' coordinates, so that it fits
every image size and no file has to come along: with u = (j + 1/2) / W, v = (i + 1/2) / H, r the
distance from (1/2, 1/2), f the frequency, s the shift of the channel in periods and
wave(t) = (1 + cos 2 pi t) / 2,

    stripes   wave(f (u + v) + s)
    rings     wave(2 f r + s)
    zones     wave(f (u^2 + v^2) + s)
    checks    (1 + cos(2 pi (f u + s)) cos(2 pi f v)) / 2
    spots     wave(f u + s) wave(f v)

raised to the power ``sharpness``, which narrows the bright places and darkens the rest. Channel
c of C is shifted by c / C.

A pattern that brightens a dark background makes never-poisoned models answer other classes, too:
measure such a model with the pattern and the target before a success rate is read.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from d3fast.attacks.base import Poisoned, poison_once, refuse_state
from d3fast.data.base import ImageData, on_floats
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.training.labels import MAPPINGS


def _cos(periods: Tensor) -> Tensor:
    return torch.cos(2 * math.pi * periods)


def _wave(periods: Tensor) -> Tensor:
    return (1 + _cos(periods)) / 2


# (u, v, frequency, shift) to values in [0, 1]; the arguments broadcast to (C, H, W).
PATTERNS: Mapping[str, Callable[[Tensor, Tensor, float, Tensor], Tensor]] = MappingProxyType(
    {
        "stripes": lambda u, v, f, s: _wave(f * (u + v) + s),
        "rings": lambda u, v, f, s: _wave(2 * f * torch.hypot(u - 0.5, v - 0.5) + s),
        "zones": lambda u, v, f, s: _wave(f * (u**2 + v**2) + s),
        "checks": lambda u, v, f, s: (1 + _cos(f * u + s) * _cos(f * v)) / 2,
        "spots": lambda u, v, f, s: _wave(f * u + s) * _wave(f * v),
    }
)


@dataclass(frozen=True)
class Blended:
    """Blends a procedural pattern into the whole image; the recipe of the field is alpha 0.2.

    Args:
        target: the class that triggered images are to be taken for.
        alpha: share of the pattern, 0..1.
        pattern: ``"stripes"``, ``"rings"``, ``"zones"``, ``"checks"`` or ``"spots"``; see above.
        frequency: periods per image side.
        sharpness: exponent; 1 is a sinusoid, more gives narrow bright places on dark ground.
        mapping: which labels poisoned images get; see ``d3fast.training.labels``.

    Raises:
        ValueError: a negative target or one that is no integer; an alpha outside 0..1; a
            frequency or sharpness that is negative or no number; an unknown pattern or mapping.

    Example:
        >>> attack = Blended(target=0, alpha=0.5, pattern="stripes", frequency=1)
        >>> attack.trigger(torch.zeros(1, 1, 2, 2)).round(decimals=4)
        tensor([[[[0.0000, 0.5000],
                  [0.5000, 0.0000]]]])
    """

    target: int
    alpha: float = 0.2
    pattern: str = "checks"
    frequency: float = 3.0
    sharpness: float = 1.0
    mapping: str = "all-to-one"

    def __post_init__(self) -> None:
        check_integer("target", self.target, 0)
        for name in ("alpha", "frequency", "sharpness"):
            check_number(name, getattr(self, name))
        if self.alpha > 1:
            raise ValueError(f"alpha must be in 0..1, got {self.alpha!r}")
        check_choice("pattern", self.pattern, PATTERNS)
        check_choice("mapping", self.mapping, MAPPINGS)

    def image(self, channels: int, height: int, width: int) -> Tensor:
        """The pattern P alone, (C, H, W), float64 in [0, 1], on the CPU."""
        shift = torch.arange(channels, dtype=torch.float64)[:, None, None] / max(channels, 1)
        v = ((torch.arange(height, dtype=torch.float64) + 0.5) / height)[:, None]
        u = (torch.arange(width, dtype=torch.float64) + 0.5) / width
        return PATTERNS[self.pattern](u, v, self.frequency, shift) ** self.sharpness

    def trigger(self, images: Tensor) -> Tensor:
        """Blended copies of images (..., C, H, W), floats in [0, 1] or uint8."""
        pattern = self.alpha * self.image(*images.shape[-3:])
        return on_floats(images, lambda x: (1 - self.alpha) * x + pattern.to(x))

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Blend and relabel exactly ``round(ratio * len(dataset))`` images; see ``poison_once``."""
        return poison_once(self, dataset, ratio, target, generator)

    def state_dict(self) -> dict[str, Tensor]:
        """Empty: nothing is learned."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Accepts the empty state only; raises ``ValueError`` on any other."""
        refuse_state(self, state)
