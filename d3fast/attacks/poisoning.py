# SPDX-License-Identifier: Apache-2.0
"""Poison a training set: draw the samples, stamp them, relabel them.

    count = round(ratio * N)     drawn from the samples whose label the attack changes,
                                 under "clean-label" from those of the target class

``poison_once`` is the ``poison`` method of most attacks; ``empty_state`` and ``load_empty_state``
are ``state_dict`` and ``load_state_dict`` of attacks that learn nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from d3fast.data.base import ImageData
from d3fast.io.untrusted import printable
from d3fast.training.labels import target_labels


@dataclass(frozen=True, eq=False)
class Poisoned:
    """Training set part of which carries the trigger.

    Attributes:
        data: all images in their original order, the poisoned ones stamped and relabelled.
        indices: (k,) int64, positions of the poisoned images, ascending.
    """

    data: ImageData
    indices: Tensor


class Targeted(Protocol):
    """Target class and label mapping of an attack."""

    @property
    def target(self) -> int:
        """The target class."""

    @property
    def mapping(self) -> str:
        """The label mapping; see ``d3fast.training.labels``."""


class Stamping(Targeted, Protocol):
    """Attack as ``poison_once`` uses it."""

    def trigger(self, images: Tensor) -> Tensor:
        """Return triggered copies of a batch of images."""


class Labelled(Protocol):
    """Any data set with class labels."""

    @property
    def labels(self) -> Tensor:
        """(N,) int64 class indices."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    def __len__(self) -> int: ...


def check_target(attack_target: int, target: int | None, classes: int) -> int:
    """Return the target class to use.

    Args:
        attack_target: the attack's own target.
        target: the target the caller asked for, or ``None``.
        classes: number of classes of the data.

    Raises:
        ValueError: ``target`` differs from the attack's own, or the target is no class.
    """
    if target is not None and target != attack_target:
        raise ValueError(f"target must be the attack's own {attack_target}, got {target}")
    if not 0 <= attack_target < classes:
        raise ValueError(f"target must be in 0..{classes - 1}, got {attack_target}")
    return attack_target


def choose_poisoned(
    attack: Targeted, dataset: Labelled, ratio: float, generator: torch.Generator | None
) -> Tensor:
    """Draw ``round(ratio * len(dataset))`` samples to poison.

    Candidates are the samples whose label the attack changes. Under ``"clean-label"`` they are
    the samples of the target class; a ratio that asks for more takes all of them.

    Args:
        attack: its target and mapping determine the candidates.
        dataset: the training set.
        ratio: share of the whole training set, 0..1.
        generator: a CPU generator; torch's default one if ``None``.

    Returns:
        (k,) int64 positions, ascending, on the CPU.

    Raises:
        ValueError: the ratio is outside 0..1 or needs more samples than there are candidates;
            the target is no class.
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio must be in 0..1, got {ratio}")
    classes = len(dataset.classes)
    check_target(attack.target, None, classes)
    unchanged = (
        target_labels(dataset.labels, attack.target, classes, attack.mapping) == dataset.labels
    )
    clean_label = attack.mapping == "clean-label"
    candidates = (unchanged if clean_label else ~unchanged).nonzero().flatten().cpu()
    count = round(ratio * len(dataset))
    if count > len(candidates) and not clean_label:
        raise ValueError(
            f"ratio={ratio} of {len(dataset)} samples needs {count} that may be poisoned, "
            f"there are {len(candidates)}"
        )
    chosen = torch.randperm(len(candidates), generator=generator)[:count]
    return candidates[chosen].sort().values


def capped_ratio(attack: Targeted, dataset: Labelled, ratio: float, share: float) -> float:
    """Return the ratio that poisons at most a share of the target class under ``"clean-label"``.

    Args:
        attack: under another mapping the ratio is unchanged.
        dataset: the training set.
        ratio: share of the whole training set; unchanged where it is no share.
        share: upper bound on the poisoned share of the target class, 0..1.

    Example:
        >>> from d3fast.attacks.sig import SIG
        >>> data = ImageData(torch.zeros(8, 1, 1, 1), torch.arange(8) % 2, ("a", "b"))
        >>> capped_ratio(SIG(target=0), data, ratio=0.9, share=0.5)
        0.25
    """
    if attack.mapping != "clean-label" or not ratio <= 1:
        return ratio
    members = int((dataset.labels == attack.target).sum())
    return min(ratio, int(share * members) / max(len(dataset), 1))


def poison_once(
    attack: Stamping,
    dataset: ImageData,
    ratio: float,
    target: int | None = None,
    generator: torch.Generator | None = None,
) -> Poisoned:
    """Stamp and relabel ``round(ratio * len(dataset))`` images of a copy of a training set.

    Args:
        attack: stamps the images; its target and mapping determine which may be drawn.
        dataset: the training set; it is not changed.
        ratio: share of the whole training set, 0..1.
        target: the attack's own target, or ``None``.
        generator: a CPU generator that draws the images; torch's default one if ``None``.

    Raises:
        ValueError: as ``choose_poisoned``; a target that is not the attack's own.
    """
    check_target(attack.target, target, len(dataset.classes))
    chosen = choose_poisoned(attack, dataset, ratio, generator).to(dataset.images.device)
    images, labels = dataset.images.clone(), dataset.labels.clone()
    if len(chosen):
        images[chosen] = attack.trigger(images[chosen])
        labels[chosen] = target_labels(
            labels[chosen], attack.target, len(dataset.classes), attack.mapping
        )
    return Poisoned(replace(dataset, images=images, labels=labels), chosen)


def empty_state(attack: Targeted) -> dict[str, Tensor]:
    """Return no tensors: the options determine the trigger."""
    return {}


def load_empty_state(attack: Targeted, state: Mapping[str, Tensor]) -> None:
    """Accept the empty state of an attack that learns nothing.

    Raises:
        ValueError: the state holds tensors.
    """
    if state:
        raise ValueError(
            f"{type(attack).__name__} learns no tensors, got {printable(', '.join(state), 80)}"
        )
