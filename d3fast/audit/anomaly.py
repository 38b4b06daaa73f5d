# SPDX-License-Identifier: Apache-2.0
"""The anomaly index of Neural Cleanse: outliers among a few numbers, one per class.

    index = |norm - median| / (1.4826 MAD),   MAD = median of |norm - median|

The norms are those of the patches that ``d3fast.audit.inversion`` finds.
"""

from collections.abc import Sequence
from statistics import median

from d3fast.runtime.checks import check_number

# Standard deviations of a normal distribution per median absolute deviation.
MAD_SCALE = 1.4826


def anomaly_indices(norms: Sequence[float]) -> tuple[float, ...]:
    """Return the anomaly index of every norm: |norm - median| / (1.4826 MAD).

    MAD is the median of |norm - median|. Where it is 0, more than half of the norms are equal;
    those have index 0 and all others infinity. Two classes have 0.67 each (or 0 if equal) and one
    class has 0: so few classes have no outlier.

    Args:
        norms: one per class, finite.

    Returns:
        As many indices, >= 0 and never NaN.

    Raises:
        ValueError: no norms, or NaN or inf among them.

    Source:
        Wang et al., Neural Cleanse, IEEE S&P 2019; 1.4826 MAD is one standard deviation of
        normal data.

    Example:
        >>> [round(index, 2) for index in anomaly_indices([10.0, 12.0, 11.0, 2.0, 9.0])]
        [0.0, 1.35, 0.67, 5.4, 0.67]
        >>> anomaly_indices([3.0, 3.0, 1.0])
        (0.0, 0.0, inf)
    """
    if not len(norms):
        raise ValueError("norms must be one number per class, got none")
    for norm in norms:
        check_number("norms", norm)
    middle = median(norms)
    away = [abs(norm - middle) for norm in norms]
    unit = MAD_SCALE * median(away)
    if unit == 0:
        return tuple(float("inf") if d else 0.0 for d in away)
    return tuple(d / unit for d in away)


def outliers(norms: Sequence[float], threshold: float = 2.0) -> tuple[int, ...]:
    """Return the positions of the norms that are unusually small.

    Args:
        norms: one per class, finite.
        threshold: anomaly index above which a norm below the median is an outlier.

    Returns:
        The positions in order; empty for fewer than three classes at a threshold of 2.

    Raises:
        ValueError: what ``anomaly_indices`` raises.

    Example:
        >>> outliers([10.0, 12.0, 11.0, 2.0, 9.0])
        (3,)
        >>> outliers([1.0, 30.0])
        ()
    """
    indices, middle = anomaly_indices(norms), median(norms)
    return tuple(
        at
        for at, (index, norm) in enumerate(zip(indices, norms, strict=True))
        if index > threshold and norm < middle
    )
