# SPDX-License-Identifier: Apache-2.0
"""Cross samples: images with a wrong trigger and their true label (WaNet, Input-aware).

    poisoned    round(ratio * N)                   the trigger, the target label
    crossed     round(cross_ratio * poisoned)      a wrong trigger, the true label
    clean       the rest

Cross samples teach the model that only the exact trigger leads to the target. The rows are drawn
once for a data set poisoned in advance (``poison_crossed``), or redrawn in every epoch
(``RedrawnBatches``). The second is how both attacks were published: the attacker trains the model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d3fast.attacks.base import Attack
from d3fast.attacks.poisoning import Poisoned, check_target, choose_poisoned
from d3fast.data.base import ImageData
from d3fast.runtime.seeding import generator as seeded
from d3fast.training.labels import target_labels

# Mappings that relabel: cross samples have no effect where no label changes.
RELABELLING = ("all-to-one", "all-to-all")

# (images (m, C, H, W), their positions (m,) in the data set, generator) -> crossed images.
Cross = Callable[[Tensor, Tensor, torch.Generator | None], Tensor]


@dataclass(frozen=True, eq=False)
class Rows:
    """Disjoint sets of poisoned and crossed rows.

    Attributes:
        poisoned: (k,) positions, ascending.
        crossed: (m,) positions, ascending.
    """

    poisoned: Tensor
    crossed: Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """Clean batch with its poisoned and crossed rows, on the device of the data.

    Attributes:
        images: (N, C, H, W) floats in [0, 1].
        labels: (N,) int64 true labels.
        positions: (N,) int64 positions of the images in the data set.
        rows: rows of this batch, 0..N-1, to poison and to cross.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    rows: Rows


def choose_rows(
    attack: Attack,
    data: ImageData,
    ratio: float,
    cross_ratio: float,
    generator: torch.Generator | None,
) -> Rows:
    """Draw the poisoned images, and the crossed ones from all other images of any class.

    Args:
        attack: its target and mapping determine which images may be poisoned.
        data: the training set.
        ratio: share of the whole training set to poison, 0..1.
        cross_ratio: crossed images per poisoned one; fewer where no images are left.
        generator: a CPU generator; torch's default one if ``None``.

    Returns:
        Positions in the data set, on the CPU.

    Raises:
        ValueError: as ``choose_poisoned``.
    """
    poisoned = choose_poisoned(attack, data, ratio, generator)
    others = torch.ones(len(data), dtype=torch.bool)
    others[poisoned] = False
    left = others.nonzero().flatten()
    count = round(cross_ratio * len(poisoned))
    crossed = left[torch.randperm(len(left), generator=generator)[:count]].sort().values
    return Rows(poisoned, crossed)


def poison_crossed(
    attack: Attack,
    data: ImageData,
    ratio: float,
    cross_ratio: float,
    target: int | None,
    generator: torch.Generator | None,
    cross: Cross,
    stamp: Cross | None = None,
) -> Poisoned:
    """Poison and cross part of a copy of a training set, once.

    Args:
        attack: stamps the poisoned images.
        data: the training set; it is not changed.
        ratio: share of the whole training set to poison, 0..1.
        cross_ratio: crossed images per poisoned one.
        target: the attack's own target, or ``None``.
        generator: a CPU generator for all draws; torch's default one if ``None``.
        cross: stamps the crossed images, in the dtype of the data.
        stamp: stamps the poisoned images, where that is not the trigger.

    Returns:
        The set; ``indices`` holds the poisoned images only, not the crossed ones.

    Raises:
        ValueError: as ``choose_rows``; a target that is not the attack's own.
    """
    classes = len(data.classes)
    check_target(attack.target, target, classes)
    rows = choose_rows(attack, data, ratio, cross_ratio, generator)
    where = data.images.device
    poisoned, crossed = rows.poisoned.to(where), rows.crossed.to(where)
    images, labels = data.images.clone(), data.labels.clone()
    if len(poisoned):
        chosen = images[poisoned]
        stamped = attack.trigger(chosen) if stamp is None else stamp(chosen, poisoned, generator)
        images[poisoned] = stamped
        labels[poisoned] = target_labels(labels[poisoned], attack.target, classes, attack.mapping)
    if len(crossed):
        images[crossed] = cross(images[crossed], crossed, generator)
    return Poisoned(replace(data, images=images, labels=labels), poisoned)


class RedrawnBatches:
    """Clean batches of a training set whose poisoned and crossed rows are redrawn in every epoch.

    The order of the images is that of a clean model trained from the same seed.

    Args:
        attack: its target and mapping determine which images may be poisoned.
        data: the training set.
        ratio: share of the images to poison in every epoch, 0..1.
        cross_ratio: crossed images per poisoned one.
        batch_size: images per batch, at most; see ``Batches``.
        seed: draws rows and order.

    Raises:
        ValueError: as ``choose_rows``.
    """

    def __init__(
        self,
        attack: Attack,
        data: ImageData,
        *,
        ratio: float,
        cross_ratio: float,
        batch_size: int,
        seed: int,
    ) -> None:
        self.attack, self.data, self.batch_size = attack, data, batch_size
        self.ratio, self.cross_ratio = ratio, cross_ratio
        self._poison, self._order = seeded(seed, "poison"), seeded(seed, "training order")
        # Raise on a set that cannot be poisoned before training starts.
        choose_rows(attack, data, ratio, cross_ratio, torch.Generator())

    def __iter__(self) -> Iterator[Batch]:
        chosen = choose_rows(self.attack, self.data, self.ratio, self.cross_ratio, self._poison)
        order = torch.randperm(len(self.data), generator=self._order)
        kinds = torch.zeros(len(self.data), dtype=torch.uint8)
        kinds[chosen.poisoned], kinds[chosen.crossed] = 1, 2
        where, start = self.data.images.device, 0
        for images, labels in self.data.subset(order).batches(self.batch_size):
            positions = order[start : start + len(labels)]
            start += len(labels)
            # On the CPU, so that no step waits for the device.
            kind = kinds[positions]
            poisoned, crossed = ((kind == k).nonzero().flatten().to(where) for k in (1, 2))
            yield Batch(images, labels, positions.to(where), Rows(poisoned, crossed))


class PoisonedBatches:
    """Loader of poisoned batches, stamped in every epoch.

    Args:
        batches: clean batches with the rows to poison and to cross.
        cross: stamps the crossed images, floats in [0, 1].
        generator: the CPU generator passed to ``cross``.
    """

    def __init__(self, batches: RedrawnBatches, cross: Cross, generator: torch.Generator) -> None:
        self.batches, self.cross, self.generator = batches, cross, generator

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        attack, classes = self.batches.attack, len(self.batches.data.classes)
        for batch in self.batches:
            images, rows = batch.images, batch.rows
            if len(rows.poisoned):
                stamped = attack.trigger(images[rows.poisoned])
                images = images.index_copy(0, rows.poisoned, stamped)
            if len(rows.crossed):
                positions = batch.positions[rows.crossed]
                crossed = self.cross(images[rows.crossed], positions, self.generator)
                images = images.index_copy(0, rows.crossed, crossed)
            yield images, relabelled(attack, batch.labels, rows.poisoned, classes)


def relabelled(attack: Attack, labels: Tensor, poisoned: Tensor, classes: int) -> Tensor:
    """Return a copy of the labels (N,) with target labels in the poisoned rows."""
    targets = target_labels(labels[poisoned], attack.target, classes, attack.mapping)
    return labels.index_copy(0, poisoned, targets)


def other_positions(
    positions: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """Draw for each position (m,) another position of the same data set, uniformly.

    Args:
        positions: (m,) int64 in 0..count-1.
        count: number of images in the data set.
        generator: a CPU generator; torch's default one if ``None``.

    Example:
        >>> other_positions(torch.tensor([0, 1, 1]), count=2).tolist()
        [1, 0, 0]
    """
    # A set of one image has no other position, but randint needs a non-empty range.
    step = torch.randint(1, max(count, 2), (len(positions),), generator=generator)
    return (positions + step.to(positions.device)) % count
