# SPDX-License-Identifier: Apache-2.0
r"""Loss of a model as the exact mean over a data set.

    L(theta) = sum_b (n_b / N) * loss(f_theta(x_b), y_b)

``loss`` returns the mean over a batch, so L is the exact mean for any batch sizes. Clean loss and
backdoor loss differ only in the data: ``triggered_batches`` makes the data of the backdoor loss,
``Difference`` stands for backdoor loss minus clean loss.
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
    """Data whose loss is L on ``minuend`` minus L on ``subtrahend``.

    Attributes:
        minuend: yields (inputs, labels), the same in every pass; for example triggered samples.
        subtrahend: likewise; for example clean samples.
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


def _checksum(inputs: Tensor, labels: Tensor) -> tuple[int, float, int]:
    """Return the number of samples, the sum of the inputs and the sum of the labels."""
    return len(labels), float(inputs.double().sum()), int(labels.sum())


class Samples:
    """Data with the weight n_b / N of every batch, checked to be the same in every pass.

    Args:
        data: yields (inputs, labels), or a ``Difference`` of two such. Batches are not stored.
        device: where batches are moved to.
        dtype: dtype of floating inputs; unchanged if ``None``.

    Raises:
        ValueError: data that can be read only once, is shuffled, yields nothing or anything but
            (inputs, labels); in a later pass, batches that differ from the first pass.

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
        self._checksums = [self._first_pass(part) for part in parts]

    def _first_pass(self, part: Iterable[Any]) -> list[tuple[int, float, int]]:
        _check_repeatable(part)
        checksums = [_checksum(*unpack(batch, "data", None)) for batch in part]
        if not sum(count for count, _, _ in checksums):
            raise yields_nothing("data")
        return checksums

    def __iter__(self) -> Iterator[tuple[float, Tensor, Tensor]]:
        """Yield (weight, inputs, labels); the weights n_b / N are negative in a subtrahend."""
        for (sign, part), checksums in zip(self._parts, self._checksums, strict=True):
            total = sum(count for count, _, _ in checksums)
            for batch, checksum in zip(part, checksums, strict=False):
                inputs, labels = unpack(batch, "data", None)
                if _checksum(inputs, labels) != checksum:
                    raise ValueError("data must yield the same batches in every pass, it did not")
                if len(labels):
                    inputs, labels = inputs.to(self.device), labels.to(self.device)
                    floats = self.dtype is not None and inputs.is_floating_point()
                    weight = sign * len(labels) / total
                    yield weight, inputs.to(self.dtype) if floats else inputs, labels


@torch.no_grad()  # a learned trigger may be a network
def triggered_batches(data: Iterable[Any], attack: Trigger, classes: int) -> list[Any]:
    """Return the samples of the backdoor loss: triggered, with target labels.

    Args:
        data: yields clean (inputs, labels).
        attack: any object with ``trigger(images)`` and ``target``; ``mapping`` is optional.
        classes: number of classes.

    Returns:
        Batches (inputs, labels) of the samples whose label the attack changes, as for the ASR.

    Raises:
        ValueError: no sample is left.

    Example:
        >>> from d3fast.attacks import BadNets
        >>> batch = (torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 2]))
        >>> [labels.tolist() for _, labels in triggered_batches([batch], BadNets(target=0), 3)]
        [[0, 0]]
    """
    batches = []
    for batch in data:
        inputs, labels = unpack(batch, "data", None)
        targets = target_labels(
            labels, attack.target, classes, getattr(attack, "mapping", "all-to-one")
        )
        changed = targets != labels
        if changed.any():
            batches.append((attack.trigger(inputs[changed]), targets[changed]))
    if not batches:
        raise ValueError(f"data holds no sample whose label an attack on {attack.target} changes")
    return batches
