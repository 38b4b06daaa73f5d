# SPDX-License-Identifier: Apache-2.0
"""The score of a detector: how far the largest of its statistics is above those of other classes.

A detector gives one statistic per class, larger where a backdoor toward that class is likelier. A
model without a backdoor treats its classes more or less alike; a backdoor makes one class an
outlier. The score counts robust standard deviations, like the index of inverted triggers in
``d3fast.audit.anomaly``, on the large side only:

    score = (max s - median s) / max(1.4826 MAD, spread)

The threshold is the score that as many normally distributed numbers exceed at a given rate. With
few classes the spread is known badly, and one of them is an outlier by chance more often than a
fixed threshold allows for.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from statistics import median

import torch

from d3fast.audit.anomaly import MAD_SCALE
from d3fast.runtime.checks import check_integer, check_number
from d3fast.runtime.seeding import generator

# With fewer classes no score exceeds 1: no class can be an outlier.
MIN_CLASSES = 3


def outlier_score(
    statistics: Sequence[float], spread: float = 0.0
) -> tuple[float | None, int | None]:
    """Return the score of the largest of a few numbers, and its position.

    Args:
        statistics: one per class, finite.
        spread: smallest unit of the score. Where all other numbers are nearly equal, a negligible
            difference would be many of their own units.

    Returns:
        (max - median) / max(1.4826 MAD, spread) and the position. The score is 0 where all numbers
        are equal, infinite where more than half are and ``spread`` is 0; ``(None, None)`` for
        fewer than three numbers.

    Raises:
        ValueError: no numbers, or NaN or inf among them.

    Example:
        >>> score, target = outlier_score([1.0, 2.0, 9.0, 1.5, 1.8])
        >>> round(score, 2), target
        (16.19, 2)
        >>> outlier_score([1.0, 1.0, 1.1, 1.0], spread=0.1)[0] < 1.1
        True
        >>> outlier_score([1.0, 9.0])
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
    """Return the score that the largest of normally distributed numbers exceeds at a given rate.

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
    scores = away.amax(dim=1) / (MAD_SCALE * _medians(away.abs())[:, 0])
    return float(scores.quantile(1 - rate))


def _medians(rows: torch.Tensor) -> torch.Tensor:
    """(N, K) to (N, 1); of an even number the mean of the middle two."""
    low, high = (rows.shape[1] - 1) // 2, rows.shape[1] // 2
    ordered = rows.sort(dim=1).values
    return (ordered[:, low : low + 1] + ordered[:, high : high + 1]) / 2
