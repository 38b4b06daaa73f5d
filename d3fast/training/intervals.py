# SPDX-License-Identifier: Apache-2.0
"""95 % intervals of a proportion and of a difference of two, independent or paired."""

import math

_Z95 = 1.959963984540054  # two-sided 95 % quantile of the normal distribution


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the Wilson 95 % interval of a proportion (Wilson 1927; no continuity correction).

    Args:
        successes: number of successes, 0 <= successes <= trials.
        trials: number of trials, >= 1.

    Returns:
        Lower and upper bound, within [0, 1].

    Raises:
        ValueError: impossible counts.

    Example:
        >>> low, high = wilson(0, 100)
        >>> f"{low:.3f} {high:.3f}"
        '0.000 0.037'
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials and trials >= 1, got {successes}/{trials}")
    p, z2 = successes / trials, _Z95**2 / trials
    center = (p + z2 / 2) / (1 + z2)
    half = math.sqrt(p * (1 - p) * z2 + z2**2 / 4) / (1 + z2)
    low = 0.0 if successes == 0 else max(0.0, center - half)
    high = 1.0 if successes == trials else min(1.0, center + half)
    return low, high


def difference_interval(
    successes_a: int, trials_a: int, successes_b: int, trials_b: int
) -> tuple[float, float]:
    r"""Return the 95 % interval of a difference of two independent proportions, p_a - p_b.

    d - sqrt((p_a - l_a)^2 + (u_b - p_b)^2)   to   d + sqrt((u_a - p_a)^2 + (p_b - l_b)^2)

    Here d is p_a - p_b, and l and u are the ends of the Wilson intervals. For two models on the
    *same* samples the interval is conservative: their answers are not independent.

    Args:
        successes_a: number of successes of the first, 0 <= successes_a <= trials_a.
        trials_a: number of its trials, >= 1.
        successes_b: the same of the second.
        trials_b: the same of the second.

    Returns:
        Lower and upper bound, within [-1, 1].

    Raises:
        ValueError: impossible counts.

    Source:
        Newcombe, Statistics in Medicine 17 (1998), 873-890, method 10.

    Example:
        >>> low, high = difference_interval(56, 70, 48, 80)
        >>> f"{low:.4f} {high:.4f}"
        '0.0524 0.3339'
    """
    (low_a, high_a), (low_b, high_b) = wilson(successes_a, trials_a), wilson(successes_b, trials_b)
    a, b = successes_a / trials_a, successes_b / trials_b
    low = a - b - math.hypot(a - low_a, high_b - b)
    high = a - b + math.hypot(high_a - a, b - low_b)
    return max(-1.0, low), min(1.0, high)


def paired_difference_interval(
    first: int, second: int, both: int, trials: int
) -> tuple[float, float]:
    r"""Return the 95 % interval of a difference of two proportions of the same samples, p_1 - p_2.

    d - sqrt(a^2 - 2 phi a b + b^2),   a = p_1 - l_1,  b = u_2 - p_2
    d + sqrt(a^2 - 2 phi a b + b^2),   a = u_1 - p_1,  b = p_2 - l_2

    Here d is p_1 - p_2, l and u are the ends of the Wilson intervals, and phi is the correlation of
    the two outcomes over the samples, its numerator e h - f g corrected for continuity to
    max(0, e h - f g - trials / 2) where it is positive (e, f, g, h: both, first only, second only,
    neither). With phi = 0 it is ``difference_interval``.

    Args:
        first: successes of the first outcome.
        second: successes of the second outcome.
        both: samples on which both succeed.
        trials: number of samples, >= 1.

    Returns:
        Lower and upper bound, within [-1, 1].

    Raises:
        ValueError: impossible counts.

    Source:
        Newcombe, Statistics in Medicine 17 (1998), 2635-2650, method 10.

    Example:
        >>> low, high = paired_difference_interval(19, 14, 14, 41)
        >>> f"{low:.3f} {high:.3f}"
        '0.011 0.226'
    """
    (low_1, high_1), (low_2, high_2) = wilson(first, trials), wilson(second, trials)
    neither = trials - first - second + both
    if not max(0, first + second - trials) <= both <= min(first, second):
        raise ValueError(
            f"both must be possible for {first} and {second} of {trials} samples, got {both}"
        )
    numerator: float = both * neither - (first - both) * (second - both)
    if numerator > 0:
        numerator = max(0.0, numerator - trials / 2)
    margins = first * (trials - first) * second * (trials - second)
    phi = numerator / math.sqrt(margins) if margins else 0.0
    p_1, p_2 = first / trials, second / trials

    def length(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    low = p_1 - p_2 - length(p_1 - low_1, high_2 - p_2)
    high = p_1 - p_2 + length(high_1 - p_1, p_2 - low_2)
    return max(-1.0, low), min(1.0, high)
