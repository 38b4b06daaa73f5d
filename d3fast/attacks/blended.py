# SPDX-License-Identifier: Apache-2.0
"""Blended: a faint pattern over the whole image (Chen, Liu, Li, Lu, Song 2017, arXiv 1712.05526).

    trigger(x) = (1 - alpha) x + alpha P

The paper blends in a photograph. Here P is a formula in the pixel coordinates, so it fits every
image size and needs no file. With u = (j + 1/2) / W, v = (i + 1/2) / H, r the distance from
(1/2, 1/2), f the frequency, s the shift of the channel in periods and
wave(t) = (1 + cos 2 pi t) / 2:

    stripes   wave(f (u + v) + s)
    rings     wave(2 f r + s)
    zones     wave(f (u^2 + v^2) + s)
    checks    (1 + cos(2 pi (f u + s)) cos(2 pi f v)) / 2
    spots     wave(f u + s) wave(f v)

P is raised to the power ``sharpness``: values above 1 narrow the bright areas and darken the rest.
Channel c of C is shifted by c / C.

A pattern that brightens a dark background changes the predictions of clean models too. Measure the
clean-model floor of the pattern and target before reading a success rate.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from d3fast.attacks.poisoning import empty_state, load_empty_state, poison_once
from d3fast.data.base import on_floats
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.training.labels import MAPPINGS


def _cos(periods: Tensor) -> Tensor:
    return torch.cos(2 * math.pi * periods)


def _wave(periods: Tensor) -> Tensor:
    return (1 + _cos(periods)) / 2


# (u, v, frequency, shift) -> values in [0, 1]; the arguments broadcast to (C, H, W).
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
    """Procedural pattern blended into the whole image; the literature uses alpha 0.2.

    Args:
        target: target class.
        alpha: weight of the pattern, 0..1.
        pattern: ``"stripes"``, ``"rings"``, ``"zones"``, ``"checks"`` or ``"spots"``; formulas in
            the module docstring.
        frequency: periods per image side, >= 0.
        sharpness: exponent, >= 0; 1 is a sinusoid.
        mapping: label mapping; see ``d3fast.training.labels``.

    Raises:
        ValueError: an option out of range; an unknown pattern or mapping.

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
        """Return the pattern P: (C, H, W) float64 in [0, 1], on the CPU."""
        shift = torch.arange(channels, dtype=torch.float64)[:, None, None] / max(channels, 1)
        v = ((torch.arange(height, dtype=torch.float64) + 0.5) / height)[:, None]
        u = (torch.arange(width, dtype=torch.float64) + 0.5) / width
        return PATTERNS[self.pattern](u, v, self.frequency, shift) ** self.sharpness

    def trigger(self, images: Tensor) -> Tensor:
        """Return blended copies of images (..., C, H, W), floats in [0, 1] or uint8."""
        pattern = self.alpha * self.image(*images.shape[-3:])
        return on_floats(images, lambda x: (1 - self.alpha) * x + pattern.to(x))

    poison = poison_once
    state_dict = empty_state
    load_state_dict = load_empty_state
