# SPDX-License-Identifier: Apache-2.0
"""Successive halving for two objectives: accuracy up, lift of the attack down.

All settings get a few epochs, the better share continues with more, and so on (Jamieson and
Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016).
The order is the rank of non-dominated sorting: rank 0 is the Pareto front, rank 1 the front of the
remaining settings.
"""

from collections.abc import Sequence

Point = tuple[float, float]  # (ACC, lift)


def dominates(one: Point, other: Point) -> bool:
    """Return ``True`` if ``one`` is no worse in both objectives and better in at least one.

    Example:
        >>> dominates((0.9, 0.1), (0.9, 0.2)), dominates((0.9, 0.1), (0.9, 0.1))
        (True, False)
    """
    return one != other and one[0] >= other[0] and one[1] <= other[1]


def ranks(points: Sequence[Point]) -> list[int]:
    """Return the rank of non-dominated sorting of every point; 0 is the Pareto front.

    Example:
        >>> ranks([(0.9, 0.1), (0.8, 0.0), (0.8, 0.2), (0.7, 0.3)])
        [0, 0, 1, 2]
    """
    found = [-1] * len(points)
    left, rank = set(range(len(points))), 0
    while left:
        front = {i for i in left if not any(dominates(points[j], points[i]) for j in left)}
        for index in front:
            found[index] = rank
        left -= front
        rank += 1
    return found


def survivors(points: Sequence[Point], count: int) -> list[int]:
    """Return the positions of the best points in order: by rank, then ACC, then position.

    Example:
        >>> survivors([(0.9, 0.1), (0.8, 0.0), (0.8, 0.2), (0.7, 0.3)], 1)
        [0]
    """
    rank = ranks(points)
    best = sorted(range(len(points)), key=lambda i: (rank[i], -points[i][0], i))
    return sorted(best[:count])


def ladder(trials: int, epochs: int, rungs: int, factor: int) -> list[tuple[int, int]]:
    """Return (settings, epochs) of every rung.

    A rung without fewer settings or more epochs than the previous one is left out; the last rung
    has all the epochs.

    Example:
        >>> ladder(9, 20, rungs=3, factor=2)
        [(9, 5), (5, 10), (3, 20)]
        >>> ladder(1, 20, rungs=3, factor=2), ladder(9, 1, rungs=3, factor=2)
        ([(1, 20)], [(9, 1)])
    """
    counts, lengths = [trials], [epochs]
    while len(counts) < rungs and counts[-1] > 1 and lengths[0] >= factor:
        counts.append(-(-counts[-1] // factor))
        lengths.insert(0, lengths[0] // factor)
    return list(zip(counts, lengths, strict=True))
