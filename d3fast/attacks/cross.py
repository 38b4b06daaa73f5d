# SPDX-License-Identifier: Apache-2.0
"""Cross samples: images that carry something like the trigger and keep their true label.

WaNet and Input-aware poison with three kinds of images: poisoned ones (the trigger, the wanted
label), crossed ones (a wrong trigger, the true label), clean ones. The crossed ones teach the
model that nothing but the trigger itself counts. Who is what is drawn here, once for a data set
poisoned in advance (``poison_crossed``), or anew in every pass over the training set (``Draws``),
which is how both attacks were published: their trainer is the attacker.

    poisoned = round(ratio * N)      crossed = round(cross_ratio * poisoned), as far as N allows
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d3fast.attacks.base import Attack, Poisoned, check_target, choose_victims
from d3fast.data.base import ImageData
from d3fast.runtime.seeding import generator as seeded
from d3fast.training.labels import target_labels

# The mappings that relabel: a crossed image tells nothing apart where no label is changed.
RELABELLING = ("all-to-one", "all-to-all")

# (images (m, C, H, W) to be crossed, their positions in the data set, generator) to the crossed.
Cross = Callable[[Tensor, Tensor, torch.Generator | None], Tensor]


@dataclass(frozen=True, eq=False)
class Rows:
    """Which images are poisoned and which are crossed; no image is both.

    Attributes:
        poisoned: (k,) positions, ascending.
        crossed: (m,) positions, ascending.
    """

    poisoned: Tensor
    crossed: Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """A clean batch and what is to become of it; everything is on the data's device.

    Attributes:
        images: (N, C, H, W) floats in [0, 1].
        labels: (N,) true labels.
        positions: (N,) where in the data set the images are.
        rows: which of the N are poisoned and crossed.
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
    """Draw the poisoned images, and the crossed ones from all others of whatever class.

    Args:
        attack: its target and mapping decide who may be poisoned.
        data: the training set.
        ratio: share of the whole training set that is poisoned, 0..1.
        cross_ratio: crossed images per poisoned one; fewer where the set is used up.
        generator: a CPU generator; torch's default one if ``None``.

    Returns:
        Positions in the data set, on the CPU.

    Raises:
        ValueError: as ``choose_victims``.
    """
    poisoned = choose_victims(attack, data, ratio, generator)
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
) -> Poisoned:
    """Poison and cross part of a copy of a training set, once.

    Args:
        attack: stamps the poisoned images.
        data: the training set; it is not changed.
        ratio: share of the whole training set that is poisoned.
        cross_ratio: crossed images per poisoned one.
        target: the attack's own target, or ``None``.
        generator: a CPU generator for all draws; torch's default one if ``None``.
        cross: stamps the crossed images, of the data's type.

    Returns:
        The set; ``indices`` are those of the relabelled images, the crossed ones not among them.

    Raises:
        ValueError: as ``choose_rows``; a target that is not the attack's.
    """
    classes = len(data.classes)
    check_target(attack.target, target, classes)
    rows = choose_rows(attack, data, ratio, cross_ratio, generator)
    where = data.images.device
    poisoned, crossed = rows.poisoned.to(where), rows.crossed.to(where)
    images, labels = data.images.clone(), data.labels.clone()
    if len(poisoned):
        images[poisoned] = attack.trigger(images[poisoned])
        labels[poisoned] = target_labels(labels[poisoned], attack.target, classes, attack.mapping)
    if len(crossed):
        images[crossed] = cross(images[crossed], crossed, generator)
    return Poisoned(replace(data, images=images, labels=labels), poisoned)


class Draws:
    """Clean batches of a training set, in every pass with other rows to poison and to cross.

    The order of the images is that of a model trained without an attack from the same seed.

    Args:
        attack: its target and mapping decide who may be poisoned.
        data: the training set.
        ratio: share of the images that are poisoned in every pass.
        cross_ratio: crossed images per poisoned one.
        batch_size: at most so many images per batch; see ``Batches``.
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
        self._drawn, self._order = seeded(seed, "poison"), seeded(seed, "training order")
        # A set that cannot be poisoned is refused here, not in the middle of a training.
        choose_rows(attack, data, ratio, cross_ratio, torch.Generator())

    def __iter__(self) -> Iterator[Batch]:
        chosen = choose_rows(self.attack, self.data, self.ratio, self.cross_ratio, self._drawn)
        order = torch.randperm(len(self.data), generator=self._order)
        kinds = torch.zeros(len(self.data), dtype=torch.uint8)
        kinds[chosen.poisoned], kinds[chosen.crossed] = 1, 2
        where, start = self.data.images.device, 0
        for images, labels in self.data.subset(order).batches(self.batch_size):
            positions = order[start : start + len(labels)]
            start += len(labels)
            # Found on the CPU: no step waits for the device.
            kind = kinds[positions]
            poisoned, crossed = ((kind == k).nonzero().flatten().to(where) for k in (1, 2))
            yield Batch(images, labels, positions.to(where), Rows(poisoned, crossed))


class CrossBatches:
    """A loader of poisoned batches, stamped anew in every pass.

    Args:
        draws: the batches and who is poisoned and crossed.
        cross: stamps the crossed images, floats.
        noise: the CPU generator that ``cross`` is given.
    """

    def __init__(self, draws: Draws, cross: Cross, noise: torch.Generator) -> None:
        self.draws, self.cross, self.noise = draws, cross, noise

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        attack, classes = self.draws.attack, len(self.draws.data.classes)
        for batch in self.draws:
            images, rows = batch.images, batch.rows
            if len(rows.poisoned):
                stamped = attack.trigger(images[rows.poisoned])
                images = images.index_copy(0, rows.poisoned, stamped)
            if len(rows.crossed):
                at = batch.positions[rows.crossed]
                crossed = self.cross(images[rows.crossed], at, self.noise)
                images = images.index_copy(0, rows.crossed, crossed)
            yield images, relabelled(attack, batch.labels, rows.poisoned, classes)


def relabelled(attack: Attack, labels: Tensor, poisoned: Tensor, classes: int) -> Tensor:
    """A copy of the labels with those of the poisoned rows as the attacker wants them."""
    want = target_labels(labels[poisoned], attack.target, classes, attack.mapping)
    return labels.index_copy(0, poisoned, want)


def other_positions(
    positions: Tensor, count: int, generator: torch.Generator | None = None
) -> Tensor:
    """For each of the images of a set of ``count`` the position of another one, drawn uniformly.

    Example:
        >>> other_positions(torch.tensor([0, 1, 1]), count=2).tolist()
        [1, 0, 0]
    """
    # No set of one image has any to be crossed: torch wants a range all the same.
    step = torch.randint(1, max(count, 2), (len(positions),), generator=generator)
    return (positions + step.to(positions.device)) % count
