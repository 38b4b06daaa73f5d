# SPDX-License-Identifier: Apache-2.0
"""ROC curves of scores: backdoored models against clean ones.

auc           the area, the share of pairs in which the backdoored model has the higher score
auc_interval  its interval, which has a width where the area is 1 too
found_at      backdoored models above a threshold that few clean ones exceed
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.metrics import roc_auc_score

_Z = 1.959964  # of a 95 % interval
_TINY = 1e-9


def auc(backdoored: Sequence[float], clean: Sequence[float]) -> float:
    """Return the area under the ROC curve; of equal scores half counts."""
    labels = [1] * len(backdoored) + [0] * len(clean)
    return float(roc_auc_score(labels, [*backdoored, *clean]))


def auc_interval(area: float, backdoored: int, clean: int) -> tuple[float, float]:
    """Return a 95 % interval of an area under the ROC curve.

    It holds every area A that the measured one is within 1.96 standard errors of, the error of
    Hanley and McNeil at A itself. DeLong's interval and the bootstrap have no width at an area of
    1, which a handful of models easily reaches.

    Args:
        area: measured.
        backdoored: number of backdoored models.
        clean: number of clean models.

    Source:
        Newcombe, Confidence intervals for an effect size measure based on the Mann-Whitney
        statistic, part 2, Statistics in Medicine 2006, method 5.

    Example:
        >>> low, high = auc_interval(1.0, 5, 40)
        >>> round(low, 2), high
        (0.78, 1.0)
    """
    mean = (backdoored + clean) / 2 - 1

    def off(truth: float) -> float:
        spread = 1 + mean * ((1 - truth) / (2 - truth) + truth / (1 + truth))
        error = math.sqrt(truth * (1 - truth) * spread / (backdoored * clean))
        return abs(area - truth) - _Z * error

    # The error is 0 at areas of 0 and 1: there the bound beside the area itself is not the root.
    low = 0.0 if area <= _TINY else float(brentq(off, 0.0, area - _TINY))
    high = 1.0 if area >= 1 - _TINY else float(brentq(off, area + _TINY, 1.0))
    return low, high


def threshold_at(clean: Sequence[float], rate: float) -> float:
    """Return the lowest score that at most a share ``rate`` of the clean models exceed.

    Example:
        >>> threshold_at([3.0, 1.0, 2.0, 4.0], 0.25), threshold_at([3.0, 1.0], 0.01)
        (3.0, 3.0)
    """
    return sorted(clean, reverse=True)[math.floor(rate * len(clean))]


def standardized(rows: NDArray[np.float64], clean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return scores in robust standard deviations of clean models, comparable between detectors.

    Args:
        rows: scores (models, detectors); compared as their inverse hyperbolic sines, since the
            scores of backdoored models differ by orders of magnitude.
        clean: scores of clean models, which give median and MAD of every detector.
    """
    transformed, base = np.arcsinh(rows), np.arcsinh(clean)
    middle = np.median(base, axis=0)
    unit = np.median(np.abs(base - middle), axis=0)
    away: NDArray[np.float64] = (transformed - middle) / unit
    return away
