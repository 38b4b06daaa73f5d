# SPDX-License-Identifier: Apache-2.0
"""What a sign of a backdoor is, and when one is raised.

A sign gives one statistic per class, larger where a backdoor toward that class is likelier. A
model without a backdoor treats its classes alike, more or less; a backdoor makes one of them
stand out. How far, in standard deviations, is the same index as for inverted triggers
(``d3fast.audit.anomaly``), on the large side only:

    value = (max s - median s) / max(1.4826 MAD, spread)

The sign is raised where the value is above a threshold that as many normally distributed numbers
exceed at a given rate: with few classes the spread is known badly, and one of them stands out by
chance more easily than a fixed threshold allows for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import Protocol

import torch

from d3fast.audit.anomaly import MAD_SCALE
from d3fast.audit.detectors.context import Subject
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator

# With fewer classes no index exceeds 1: nothing can stand out.
MIN_CLASSES = 3


class Sign(Protocol):
    """The shape of every sign: a frozen dataclass of options, one file each."""

    @property
    def name(self) -> str:
        """Short, for tables."""

    @property
    def title(self) -> str:
        """What is compared between the classes."""

    @property
    def spread(self) -> float:
        """Least unit that a statistic is counted in; see ``standing_out``."""

    def __call__(self, subject: Subject) -> Sequence[float]:
        """One statistic per class, larger where a backdoor is likelier."""


@dataclass(frozen=True)
class Finding:
    """What one sign says of one model.

    Attributes:
        name: of the sign.
        statistics: one per class, larger where a backdoor is likelier.
        value: how far the largest stands out; ``None`` where that cannot be said (fewer than
            three classes), infinite where all others are equal.
        threshold: value above which the sign is raised.
        target: class with the largest statistic; ``None`` along with ``value``.
        meaning: one plain sentence.
    """

    name: str
    statistics: tuple[float, ...]
    value: float | None
    threshold: float
    target: int | None
    meaning: str

    @property
    def raised(self) -> bool:
        """Whether the value is above the threshold."""
        return self.value is not None and self.value > self.threshold


def standing_out(
    statistics: Sequence[float], spread: float = 0.0
) -> tuple[float | None, int | None]:
    """How far the largest of a few numbers stands out, and which one it is.

    Args:
        statistics: one per class, finite.
        spread: least unit that it is counted in. Where all but one are nearly equal, a difference
            that means nothing would be many of their own units.

    Returns:
        (max - median) / max(1.4826 MAD, spread) and its position. 0 where all are equal, infinity
        where more than half are and there is no spread; ``(None, None)`` for fewer than three.

    Raises:
        ValueError: no numbers, or NaN or inf among them.

    Example:
        >>> value, target = standing_out([1.0, 2.0, 9.0, 1.5, 1.8])
        >>> round(value, 2), target
        (16.19, 2)
        >>> standing_out([1.0, 1.0, 1.1, 1.0], spread=0.1)[0] < 1.1
        True
        >>> standing_out([1.0, 9.0])
        (None, None)
    """
    if not len(statistics):
        raise ValueError("statistics must be one number per class, got none")
    for statistic in statistics:
        check_number("statistics", statistic, -math.inf)
    if len(statistics) < MIN_CLASSES:
        return None, None
    middle = median(statistics)
    unit = max(MAD_SCALE * median([abs(s - middle) for s in statistics]), spread)
    target = max(range(len(statistics)), key=statistics.__getitem__)
    away = statistics[target] - middle
    if unit == 0:
        return (math.inf if away else 0.0), target
    return away / unit, target


@lru_cache(maxsize=64)
def threshold(classes: int, rate: float) -> float:
    """Value that the largest of normally distributed numbers exceeds at a given rate.

    Estimated from 20,000 draws, fewer above 400 classes; the same on every machine.

    Args:
        classes: how many numbers, three or more.
        rate: share of draws that exceed it, in (0, 1).

    Raises:
        ValueError: a number out of range.

    Example:
        >>> [round(threshold(classes, 0.025)) for classes in (10, 100)]
        [5, 4]
    """
    check_integer("classes", classes, MIN_CLASSES)
    check_number("rate", rate)
    if not 0 < rate < 1:
        raise ValueError(f"rate must be > 0 and < 1, got {rate}")
    draws = max(1000, min(20_000, 8_000_000 // classes))
    numbers = torch.randn(
        draws, classes, generator=generator(0, "null distribution"), dtype=torch.float64
    )
    away = numbers - _medians(numbers)
    values = away.amax(dim=1) / (MAD_SCALE * _medians(away.abs())[:, 0])
    return float(values.quantile(1 - rate))


def _medians(rows: torch.Tensor) -> torch.Tensor:
    """(N, K) to (N, 1); of an even number the mean of the middle two."""
    low, high = (rows.shape[1] - 1) // 2, rows.shape[1] // 2
    ordered = rows.sort(dim=1).values
    return (ordered[:, low : low + 1] + ordered[:, high : high + 1]) / 2


def ask(sign: Sign, subject: Subject, names: Sequence[str], rate: float) -> Finding:
    """What a sign says of a model.

    Args:
        sign: the sign.
        subject: the model and its samples.
        names: of the classes.
        rate: of false alarms, were the statistics of a clean model normally distributed.

    Raises:
        ValueError: what the sign raises; a statistic that is NaN or inf.
    """
    statistics = tuple(float(statistic) for statistic in sign(subject))
    try:
        value, target = standing_out(statistics, sign.spread)
    except ValueError as error:
        raise ValueError(f"sign {sign.name}: {error}") from None
    above = threshold(max(len(statistics), MIN_CLASSES), rate)
    raised = value is not None and value > above
    meaning = _sentence(sign, None if target is None else names[target], raised)
    return Finding(sign.name, statistics, value, above, target, meaning)


def _sentence(sign: Sign, name: str | None, raised: bool) -> str:
    if name is None:
        return f"{sign.title}: with fewer than {MIN_CLASSES} classes none can stand out."
    verb = "stands out" if raised else "does not stand out"
    return f"{sign.title}: {short(name)} is furthest above the others and {verb}."


def short(name: str, most: int = 30) -> str:
    """A class's name in quotes, cut: names are a stranger's, and sentences have to stay short."""
    return repr(name if len(name) <= most else name[: most - 1] + "…")
