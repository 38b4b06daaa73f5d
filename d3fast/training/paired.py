# SPDX-License-Identifier: Apache-2.0
"""Accuracy before and after on the same samples: the loss, its paired interval, its resolution."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from d3fast.runtime.devices import resolve_device
from d3fast.training.intervals import paired_difference_interval
from d3fast.training.loaders import class_scores, unpack, yields_nothing
from d3fast.training.modes import eval_mode


@torch.no_grad()
def correct_answers(
    model: nn.Module,
    loader: Iterable[Any],
    device: str | torch.device | None = None,
    *,
    name: str = "loader",
) -> Tensor:
    """Return which samples a model answers correctly, (N,) bool on the CPU, in eval mode.

    Args:
        model: returns (N, classes) scores.
        loader: yields (inputs, labels) in the same order for every model that is compared.
        device: where to compute; the model's device if ``None``.
        name: the loader's name in error messages.

    Raises:
        ValueError: no samples, or batches that are not (inputs, labels).

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
        >>> _ = model[1].weight.data.copy_(torch.eye(2))
        >>> correct_answers(model, [(torch.eye(2)[:, None], torch.tensor([0, 0]))]).tolist()
        [True, False]
    """
    where = resolve_device(device, model)
    model.to(where)
    found = []
    with eval_mode(model):
        for batch in loader:
            inputs, labels = unpack(batch, name, where)
            found.append((class_scores(model, inputs).argmax(dim=1) == labels).cpu())
    if not found:
        raise yields_nothing(name)
    return torch.cat(found)


@dataclass(frozen=True)
class PairedAccuracy:
    """Correct answers of two models on the same samples.

    Attributes:
        before: of the first model.
        after: of the second model.
        both: samples that both answer correctly.
        samples: number of samples, 1 or more.

    Example:
        >>> pair = PairedAccuracy(before=900, after=880, both=870, samples=1000)
        >>> pair.lost, pair.gained, [round(points, 2) for points in (pair.drop, *pair.interval)]
        (30, 10, [2.0, 0.75, 3.31])
    """

    before: int
    after: int
    both: int
    samples: int

    @classmethod
    def of(cls, before: Tensor, after: Tensor) -> "PairedAccuracy":
        """Count the answers of ``correct_answers`` of two models."""
        both = before & after
        return cls(int(before.sum()), int(after.sum()), int(both.sum()), len(before))

    @property
    def lost(self) -> int:
        """Samples that only the first model answers correctly."""
        return self.before - self.both

    @property
    def gained(self) -> int:
        """Samples that only the second model answers correctly."""
        return self.after - self.both

    @property
    def drop(self) -> float:
        """Accuracy lost, in points."""
        return 100 * (self.before - self.after) / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of ``drop``, in points; see ``paired_difference_interval``."""
        low, high = paired_difference_interval(self.before, self.after, self.both, self.samples)
        return 100 * low, 100 * high


def unresolved(correct: int, samples: int) -> int:
    """Return the largest number of lost samples that cannot be told from none.

    The 95 % paired interval of that loss, with no sample gained, includes 0.

    Args:
        correct: samples answered correctly before.
        samples: number of samples, 1 or more.

    Example:
        >>> unresolved(65, 65), unresolved(900, 1000)
        (4, 5)
    """
    for lost in range(1, correct + 1):
        kept = correct - lost
        if paired_difference_interval(correct, kept, kept, samples)[0] > 0:
            return lost - 1
    return correct


def resolved_limit(limit: float, correct: int, samples: int) -> float:
    """Return a limit of accuracy lost, in points, no finer than the samples can resolve.

    Args:
        limit: points.
        correct: samples answered correctly before.
        samples: number of samples, 1 or more.

    Example:
        >>> resolved_limit(1.0, 900, 1000), round(resolved_limit(1.0, 65, 65), 1)
        (1.0, 6.2)
    """
    return max(limit, 100 * unresolved(correct, samples) / samples)
