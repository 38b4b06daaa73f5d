# SPDX-License-Identifier: Apache-2.0
"""What a sign of a backdoor is, and when one is raised.

A sign gives one statistic per class, larger where a backdoor toward that class is likelier. A
model without a backdoor treats its classes alike, more or less; a backdoor makes one of them
stand out. How far, in standard deviations, is the same index as for inverted triggers
(``d3fast.anomaly``), on the large side only:

    value = (max s - median s) / (1.4826 MAD)

The sign is raised where the value is above the threshold, toward the class with the maximum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from d3fast.anomaly import anomaly_indices
from d3fast.checks import check_number
from d3fast.inspection.subject import Subject

# With fewer classes no index exceeds 1: nothing can stand out.
MIN_CLASSES = 3


class Sign(Protocol):
    """The shape of every sign: a frozen dataclass of options, one file each."""

    @property
    def name(self) -> str:
        """Short, for tables."""

    @property
    def title(self) -> str:
        """What it looks for, the end of the sentence "... stands out"."""

    @property
    def threshold(self) -> float:
        """Value above which it is raised."""

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


def standing_out(statistics: Sequence[float]) -> tuple[float | None, int | None]:
    """How far the largest of a few numbers stands out, and which one it is.

    Args:
        statistics: one per class, finite.

    Returns:
        (max - median) / (1.4826 MAD) and its position. 0 where all are equal, infinity where
        more than half are; ``(None, None)`` for fewer than three.

    Raises:
        ValueError: no numbers, or NaN or inf among them.

    Example:
        >>> value, target = standing_out([1.0, 2.0, 9.0, 1.5, 1.8])
        >>> round(value, 2), target
        (16.19, 2)
        >>> standing_out([1.0, 9.0])
        (None, None)
    """
    for statistic in statistics:
        check_number("statistics", statistic, -math.inf)
    if 0 < len(statistics) < MIN_CLASSES:
        return None, None
    lowest = min(statistics, default=0.0)
    indices = anomaly_indices([statistic - lowest for statistic in statistics])
    target = max(range(len(statistics)), key=statistics.__getitem__)
    return indices[target], target


def ask(sign: Sign, subject: Subject, names: Sequence[str]) -> Finding:
    """What a sign says of a model.

    Args:
        sign: the sign.
        subject: the model and its samples.
        names: of the classes.

    Raises:
        ValueError: what the sign raises; a statistic that is NaN or inf.
    """
    statistics = tuple(float(statistic) for statistic in sign(subject))
    try:
        value, target = standing_out(statistics)
    except ValueError as error:
        raise ValueError(f"sign {sign.name}: {error}") from None
    meaning = _sentence(sign, value, target, names)
    return Finding(sign.name, statistics, value, sign.threshold, target, meaning)


def _sentence(sign: Sign, value: float | None, target: int | None, names: Sequence[str]) -> str:
    if value is None or target is None:
        return f"{sign.title}: with fewer than {MIN_CLASSES} classes none can stand out."
    verb = "stands out" if value > sign.threshold else "does not stand out"
    return f"{sign.title}: class {names[target]!r} is furthest from the others and {verb}."
