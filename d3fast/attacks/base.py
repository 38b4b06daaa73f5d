# SPDX-License-Identifier: Apache-2.0
"""Protocols of the attacks, and the training plan that implants one.

An attack is a frozen dataclass of options with a ``target``, a label ``mapping`` and four methods:
``trigger`` (stamp a batch), ``poison`` (stamp and relabel part of a training set), ``state_dict``
and ``load_state_dict`` (learned tensors; none for fixed patterns). Two protocols are optional:
``Learned`` for a trigger that is learned before use, ``OwnTraining`` for an attack that needs more
than a training set poisoned once.

The methods that most attacks share are the functions of ``d3fast.attacks.poisoning``; a class
takes them over by assignment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from d3fast.attacks.poisoning import Poisoned
from d3fast.data.base import ImageData
from d3fast.runtime.seeding import generator as seeded
from d3fast.training.loop import Gradients, plain_gradients


@runtime_checkable
class Attack(Protocol):
    """Interface of every attack."""

    @property
    def target(self) -> int:
        """Class that the model is to predict for triggered images."""

    @property
    def mapping(self) -> str:
        """Label mapping of poisoned images; see ``d3fast.training.labels``."""

    def trigger(self, images: Tensor) -> Tensor:
        """Return triggered copies of images (N, C, H, W), floats in [0, 1] or uint8."""

    def poison(
        self,
        dataset: ImageData,
        ratio: float,
        target: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Poisoned:
        """Return a copy of the dataset with the given share of its images poisoned."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return the learned tensors by name."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the tensors that ``state_dict`` returned."""


@runtime_checkable
class Learned(Protocol):
    """Attack whose trigger is learned once on the attacker's training data and then fixed."""

    @property
    def learned(self) -> bool:
        """True once ``trigger`` can be called."""

    def learn(
        self,
        data: ImageData,
        *,
        seed: int = 0,
        device: str | torch.device | None = None,
        progress: bool = True,
    ) -> None:
        """Learn the trigger; afterwards ``state_dict`` holds it."""


@dataclass(frozen=True)
class Training:
    """Training data and gradient rule of one backdoored model.

    Attributes:
        loader: yields poisoned (images, labels); iterated once per epoch.
        gradients: computes the gradients of a batch; see ``d3fast.training.loop.Gradients``.
    """

    loader: Iterable[Any]
    gradients: Gradients = plain_gradients


@runtime_checkable
class OwnTraining(Protocol):
    """Attack that supplies its own training plan instead of a set poisoned once."""

    def training(
        self, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
    ) -> Training:
        """Return the training plan; ``data`` is clean, on its device, and is not changed."""


def training_plan(
    attack: Attack, data: ImageData, *, ratio: float, batch_size: int, seed: int, progress: bool
) -> Training:
    """Return the training plan that implants an attack: its own, or the set poisoned once.

    Args:
        attack: the attack to implant.
        data: the clean training set; it is not changed.
        ratio: share of the training set to poison, 0..1.
        batch_size: images per batch, at most.
        seed: draws the poisoned images and the order of the batches.
        progress: show progress bars while an attack trains networks of its own.

    Raises:
        ValueError: the attack does not fit the data, or has not been learned.
    """
    if isinstance(attack, OwnTraining):
        return attack.training(
            data, ratio=ratio, batch_size=batch_size, seed=seed, progress=progress
        )
    poisoned = attack.poison(data, ratio, generator=seeded(seed, "poison")).data
    return Training(poisoned.batches(batch_size, seeded(seed, "training order")))
