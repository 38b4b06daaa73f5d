# SPDX-License-Identifier: Apache-2.0
"""Options of a pilot, and its settings of (distance weight, lambda, epsilon).

The settings are drawn from a grid of a few values each, in Latin squares: with n values each, the
first n^2 settings hold every pair of values of any two parameters once, so that the mean over one
parameter's value is not biased by the other two.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from d3fast.audit.inversion import InversionOptions
from d3fast.detox import D3Config
from d3fast.detox.samples import BATCH_SIZE
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator

PARAMETERS = ("distance_weight", "clean_weight", "epsilon")


@dataclass(frozen=True)
class Setting:
    """One choice of the three parameters.

    Attributes:
        distance_weight: w.
        clean_weight: lambda.
        epsilon: bound on the clean cross-entropy, in nats.
    """

    distance_weight: float
    clean_weight: float
    epsilon: float

    @classmethod
    def of(cls, source: Any) -> "Setting":
        """Return the setting of a configuration."""
        return cls(*(getattr(source, name) for name in PARAMETERS))

    def config(self, base: D3Config, **changes: Any) -> D3Config:
        """Return a configuration with this setting and a fixed lambda.

        Example:
            >>> Setting(1.0, 5.0, 0.1).config(D3Config.auto()).dual_step
            0.0
        """
        fixed: dict[str, Any] = {"dual_step": 0.0, "margin": None}
        own = {name: getattr(self, name) for name in PARAMETERS}
        return replace(base, **{**fixed, **own, **changes})


@dataclass(frozen=True)
class PilotOptions:
    """Options of a pilot.

    Attributes:
        trials: number of settings in the first rung.
        epochs: of a trial in the last rung.
        rungs: number of rungs.
        factor: each rung has 1/factor of the settings of the previous rung and factor times its
            epochs.
        distance_weight: values of w.
        clean_weight: values of lambda.
        epsilon: values of epsilon.
        max_acc_drop: allowed loss of held-out accuracy, in points.
        batch_size: largest number of images per batch of a repair.
        inversion: options of the search for the suspect's triggers. The triggers must work, not be
            the smallest, so fewer steps than in an inspection suffice.
        threads: of torch, for each worker on a CPU; the last bits of the results depend on it.

    Raises:
        ValueError: a number out of range; more trials than the grid has settings.
    """

    trials: int = 9
    epochs: int = 40
    rungs: int = 3
    factor: int = 2
    distance_weight: tuple[float, ...] = (0.3, 1.0, 3.0)
    clean_weight: tuple[float, ...] = (3.0, 10.0, 30.0)
    epsilon: tuple[float, ...] = (0.03, 0.1, 0.3)
    max_acc_drop: float = 1.0
    batch_size: int = BATCH_SIZE
    inversion: InversionOptions = field(
        default_factory=lambda: InversionOptions(steps=200, batch_size=16)
    )
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("trials", "epochs", "rungs", "batch_size", "threads"):
            check_integer(name, getattr(self, name), 1)
        check_integer("factor", self.factor, 2)
        check_number("max_acc_drop", self.max_acc_drop)
        size = 1
        for name in PARAMETERS:
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be one or more different values, got {values}")
            for value in values:
                check_number(name, value)
            size *= len(values)
        if self.trials > size:
            raise ValueError(
                f"trials must be <= {size}, the settings of the grid, got {self.trials}"
            )


def draw_settings(options: PilotOptions, seed: int, first: Setting | None = None) -> list[Setting]:
    """Return different settings for the first rung, in a seeded order.

    Args:
        options: values of each parameter, and the number of settings.
        seed: of the draw.
        first: a setting that is put first if the grid has it.

    Example:
        >>> settings = draw_settings(PilotOptions(trials=9), seed=0)
        >>> [sum(s.epsilon == value for s in settings) for value in (0.03, 0.1, 0.3)]
        [3, 3, 3]
    """
    bounds = options.epsilon
    squares = [
        [
            Setting(weight, clean, bounds[(i + j + shift) % len(bounds)])
            for i, weight in enumerate(options.distance_weight)
            for j, clean in enumerate(options.clean_weight)
        ]
        for shift in range(len(bounds))
    ]
    squares.sort(key=lambda square: first not in square)
    draws, drawn = generator(seed, "pilot settings"), list[Setting]()
    for square in squares:
        drawn += [square[at] for at in torch.randperm(len(square), generator=draws).tolist()]
    drawn.sort(key=lambda setting: setting != first)
    return drawn[: options.trials]
