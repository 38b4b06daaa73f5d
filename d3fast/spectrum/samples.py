# SPDX-License-Identifier: Apache-2.0
r"""The loss that a spectrum is of: a mean over all samples of a data set, batch by batch.

    L(theta) = sum_b (n_b / N) * loss(f_theta(x_b), y_b)

``loss`` gives the mean over a batch, so L is the exact mean however the batches are cut. Clean
loss and backdoor loss differ in the data alone: ``triggered_batches`` makes the latter's.
``Difference`` is the backdoor loss minus the clean one, as data.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from d3fast.training.labels import target_labels
from d3fast.training.loaders import unpack, yields_nothing
from d3fast.training.metrics import Trigger

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Difference:
    """L on ``minuend`` minus L on ``subtrahend``, wherever data is asked for.

    Attributes:
        minuend: yields (inputs, labels) afresh in every pass; say, triggered samples.
        subtrahend: the same; say, clean samples.
    """

    minuend: Iterable[Any]
    subtrahend: Iterable[Any]


Data = Iterable[Any] | Difference


def _check_repeatable(data: Iterable[Any]) -> None:
    if isinstance(data, Iterator):
        raise ValueError(
            f"data must yield the same batches in every pass, a {type(data).__name__} yields them "
            "once; pass a list or a DataLoader"
        )
    if isinstance(data, DataLoader) and isinstance(data.sampler, RandomSampler):
        raise ValueError("data must yield the same batches in every pass; set shuffle=False")
    if getattr(data, "shuffle", None) is not None:
        raise ValueError("data must yield the same batches in every pass; do not shuffle")


def _where_it_is(batch: Any) -> tuple[Tensor, Tensor]:
    pair = isinstance(batch, (tuple, list)) and len(batch) > 0
    place = batch[0].device if pair and isinstance(batch[0], Tensor) else torch.device("cpu")
    return unpack(batch, "data", place)


def _mark(inputs: Tensor, labels: Tensor) -> tuple[int, float, int]:
    """What tells one batch from another: number, sum of inputs, sum of labels."""
    return len(labels), float(inputs.double().sum()), int(labels.sum())


class Samples:
    """Data that has been looked at once: every pass gives the same batches with their weights.

    Args:
        data: yields (inputs, labels), or a ``Difference`` of two such. Nothing of it is kept.
        device: where batches are moved to.
        dtype: of floating inputs; as they are if ``None``.

    Raises:
        ValueError: data that can be read only once, is shuffled, yields nothing or something else
            than (inputs, labels); in a later pass, batches that are not those of the first.

    Example:
        >>> batch = (torch.ones(2, 1), torch.zeros(2, dtype=torch.long))
        >>> [weight for weight, _, _ in Samples(Difference([batch], [batch, batch]))]
        [1.0, -0.5, -0.5]
    """

    def __init__(
        self, data: Data, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ) -> None:
        self.device, self.dtype = torch.device(device), dtype
        parts = [data] if not isinstance(data, Difference) else [data.minuend, data.subtrahend]
        self._parts = tuple(zip((1.0, -1.0), parts, strict=False))
        self._marks = [self._first_pass(part) for part in parts]

    def _first_pass(self, part: Iterable[Any]) -> list[tuple[int, float, int]]:
        _check_repeatable(part)
        marks = [_mark(*_where_it_is(batch)) for batch in part]
        if not sum(count for count, _, _ in marks):
            raise yields_nothing("data")
        return marks

    def __iter__(self) -> Iterator[tuple[float, Tensor, Tensor]]:
        """Triples (weight, inputs, labels); the weights n_b / N are negative in a subtrahend."""
        for (sign, part), marks in zip(self._parts, self._marks, strict=True):
            total = sum(count for count, _, _ in marks)
            for batch, mark in zip(part, marks, strict=False):
                inputs, labels = _where_it_is(batch)
                if _mark(inputs, labels) != mark:
                    raise ValueError("data must yield the same batches in every pass, it did not")
                if len(labels):
                    inputs, labels = inputs.to(self.device), labels.to(self.device)
                    floats = self.dtype is not None and inputs.is_floating_point()
                    weight = sign * len(labels) / total
                    yield weight, inputs.to(self.dtype) if floats else inputs, labels


@torch.no_grad()  # a learned trigger may be a network
def triggered_batches(data: Iterable[Any], attack: Trigger, classes: int) -> list[Any]:
    """The samples of the backdoor loss: triggered, labelled as the attacker wants them.

    Args:
        data: yields clean (inputs, labels).
        attack: any object with ``trigger(images)`` and ``target``; a ``mapping`` is looked at.
        classes: number of classes.

    Returns:
        Batches (inputs, labels) of the samples whose label a hit changes, as ASR counts them.

    Raises:
        ValueError: no sample is left.

    Example:
        >>> from d3fast.attacks import BadNets
        >>> batch = (torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 2]))
        >>> [labels.tolist() for _, labels in triggered_batches([batch], BadNets(target=0), 3)]
        [[0, 0]]
    """
    made = []
    for batch in data:
        inputs, labels = _where_it_is(batch)
        goal = target_labels(
            labels, attack.target, classes, getattr(attack, "mapping", "all-to-one")
        )
        changed = goal != labels
        if changed.any():
            made.append((attack.trigger(inputs[changed]), goal[changed]))
    if not made:
        raise ValueError(f"data holds no sample whose label an attack on {attack.target} changes")
    return made
