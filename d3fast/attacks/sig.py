# SPDX-License-Identifier: Apache-2.0
"""SIG: a faint sine wave over the columns (Barni, Kallas, Tondi, ICIP 2019).

    trigger(x)[..., i, j] = clamp(x[..., i, j] + delta sin(2 pi j f / W), 0, 1)

for column j of W; f is the frequency.

A clean-label attack: only images of the target class are poisoned, and no label changes. The model
learns the wave as a feature of the target class. The wave may be weaker in training than at test
time, which makes the poison harder to see.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d3fast.attacks.poisoning import (
    Poisoned,
    capped_ratio,
    empty_state,
    load_empty_state,
    poison_once,
)
from d3fast.data.base import ImageData, on_floats
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.training.labels import MAPPINGS


@dataclass(frozen=True)
class SIG:
    """Sine wave along every row; the literature uses 40/255 at test and 6 periods.

    W columns resolve at most W/2 periods: a frequency f above W/2 aliases to W - f, and at a
    multiple of W/2 the wave is zero in every column.

    Args:
        target: target class.
        delta: amplitude of the wave on images in [0, 1], 0..1.
        frequency: periods per image width, >= 0.
        train_delta: amplitude in poisoned training images; ``delta`` if ``None``.
        share: upper bound on the poisoned share of the target class, whatever the ratio. A class
            that is poisoned completely is no longer recognised without the wave.
        mapping: label mapping; see ``d3fast.training.labels``.

    Raises:
        ValueError: an option out of range; an unknown mapping.

    Example:
        >>> SIG(target=0, delta=0.25, frequency=1).trigger(torch.full((1, 1, 1, 4), 0.5))
        tensor([[[[0.5000, 0.7500, 0.5000, 0.2500]]]])
    """

    target: int
    delta: float = 40 / 255
    frequency: float = 6.0
    train_delta: float | None = None
    share: float = 1.0
    mapping: str = "clean-label"

    def __post_init__(self) -> None:
        check_integer("target", self.target, 0)
        check_number("frequency", self.frequency)
        train_delta = self.delta if self.train_delta is None else self.train_delta
        shares = {"delta": self.delta, "train_delta": train_delta, "share": self.share}
        for name, value in shares.items():
            check_number(name, value)
            if value > 1:
                raise ValueError(f"{name} must be in 0..1, got {value!r}")
        check_choice("mapping", self.mapping, MAPPINGS)

    def trigger(self, images: Tensor) -> Tensor:
        """Return stamped copies of images (..., C, H, W), floats in [0, 1] or uint8."""
        width = images.shape[-1]
        columns = torch.arange(width, dtype=torch.float64)
        wave = self.delta * torch.sin(2 * math.pi * columns * self.frequency / width)
        return on_floats(images, lambda x: x + wave.to(x))

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Stamp ``round(ratio * len(dataset))`` images at ``train_delta``; see ``poison_once``.

        Under ``"clean-label"`` at most ``share`` of the target class is stamped.
        """
        ratio = capped_ratio(self, dataset, ratio, self.share)
        faint = self if self.train_delta is None else replace(self, delta=self.train_delta)
        return poison_once(faint, dataset, ratio, target, generator)

    state_dict = empty_state
    load_state_dict = load_empty_state
