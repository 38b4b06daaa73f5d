# SPDX-License-Identifier: Apache-2.0
"""Conformal p-values of a model's scores against those of clean models.

A detector alone:

    p = (1 + #{clean models with a score >= s}) / (1 + n)

is at most a with probability at most a if the model is clean and exchangeable with the n clean
models (Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2005; Bates, Candes, Lei,
Romano, Sesia, Testing for outliers with conformal p-values, Annals of Statistics 2023).

Several detectors: the largest standardized score replaces the score (the max-T procedure of
Westfall and Young, Resampling-Based Multiple Testing, 1993). Over the pool of all n + 1 models

    z_jk = (asinh s_jk - median_k) / (1.4826 MAD_k),    T_j = max_k z_jk
    adjusted p_k = #{j in the pool: T_j >= z_k} / (1 + n)

The pool is treated symmetrically, so that the smallest adjusted p is a conformal p-value too: a
clean model has one of at most a with probability at most a, whatever the number of detectors and
however they depend on each other. Standardized scores are taken, not ranks: as many models as there
are detectors share the first rank, and the smallest p-value would be that many times larger.

Where the statistics of all classes are known, the score of a model is the largest one compared with
the same class of the pool (``per_class_scores``): some class of every clean model is the easiest to
reach, and it is often the same one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d3fast.audit.anomaly import MAD_SCALE

Numbers = NDArray[np.float64]
_LARGEST = 1e6  # stands for infinity, so that two infinite scores are equal
_HALVINGS = 40


def adjusted_p_values(
    scores: Sequence[float], clean: Sequence[Sequence[float]]
) -> tuple[float, ...]:
    """Return the adjusted p-values of the detectors; arguments as of ``score_test``."""
    return tuple(_adjusted(_standardized(_pool(scores, clean))).tolist())


@dataclass(frozen=True)
class ScoreTest:
    """The p-values of one model.

    Attributes:
        p_values: of every detector alone.
        adjusted: for the number of detectors; the smallest is the p-value of the model.
        thresholds: score of every detector above which it flags the model.
        largest: the largest standardized score; it orders models that share a p-value.
    """

    p_values: tuple[float, ...]
    adjusted: tuple[float, ...]
    thresholds: tuple[float, ...]
    largest: float

    @property
    def p_value(self) -> float:
        """Of the model, over all detectors."""
        return min(self.adjusted)


def per_class_scores(statistics: ArrayLike) -> tuple[Numbers, NDArray[np.intp]]:
    """Return the scores of a pool of models from their statistics per class.

    With a_jc the statistic of class c of model j minus the median over the classes of model j:

        score_j = max_c (a_jc - median_c) / max(u_c, median of u over the classes)

    where u_c = 1.4826 MAD_c; median_c and MAD_c are over the pool, in which all models are alike.

    Args:
        statistics: (models, classes), finite.

    Returns:
        The scores (models,), and the class (models,) that each is of.

    Example:
        >>> pool = [[0.0, 5.0, 1.0], [1.0, 7.0, 1.0], [0.0, 6.0, 0.5], [0.0, 6.0, 4.0]]
        >>> per_class_scores(pool)[1].tolist()[-1]  # not class 1, which is large in every model
        2
    """
    table = np.asarray(statistics, dtype=np.float64)
    centred = table - np.median(table, axis=1, keepdims=True)
    standard = _standardized(centred, floor=True)
    return standard.max(axis=1), standard.argmax(axis=1)


def resolved_rate(rate: float, models: int) -> float:
    """Return the false-alarm rate that so many clean models can resolve: no less than 1 / (n + 1).

    Example:
        >>> resolved_rate(0.01, 49), resolved_rate(0.05, 49)
        (0.02, 0.05)
    """
    return max(rate, 1 / (models + 1))


def score_test(scores: Sequence[float], clean: Sequence[Sequence[float]], rate: float) -> ScoreTest:
    """Compare the scores of a model with those of clean models.

    Args:
        scores: one per detector; may be infinite.
        clean: as many for each of n clean models.
        rate: false alarms of all detectors together; raised to ``resolved_rate``.

    Raises:
        ValueError: no detectors or no clean models; numbers of detectors that differ; NaN.

    Example:
        >>> clean = [[k / 10, 1.0] for k in range(19)]
        >>> found = score_test([9.0, 1.0], clean, 0.05)
        >>> found.p_values, found.p_value, found.thresholds[0] < 9
        ((0.05, 1.0), 0.05, True)
    """
    pool = _pool(scores, clean)
    models, detectors = pool.shape
    above = (pool >= pool[0]).sum(axis=0)
    standard = _standardized(pool)
    adjusted = _adjusted(standard)
    limit = resolved_rate(rate, models - 1)
    thresholds = (_threshold(pool, k, adjusted[k] <= limit, limit) for k in range(detectors))
    p_values = tuple((above / models).tolist())
    return ScoreTest(
        p_values, tuple(adjusted.tolist()), tuple(thresholds), float(standard[0].max())
    )


def _pool(scores: Sequence[float], clean: Sequence[Sequence[float]]) -> Numbers:
    """Return the transformed scores (1 + n, detectors), the model's own first."""
    if not len(clean) or not len(scores) or any(len(row) != len(scores) for row in clean):
        raise ValueError(
            f"scores must be one or more, as many as those of each clean model, got {len(scores)}"
        )
    pool = np.array([scores, *clean], dtype=np.float64)
    if np.isnan(pool).any():
        raise ValueError("scores must not be NaN")
    return np.arcsinh(np.clip(pool, -_LARGEST, _LARGEST))


def _standardized(pool: Numbers, *, floor: bool = False) -> Numbers:
    """Return every column of a pool in robust standard deviations of the column.

    Args:
        pool: one row per model.
        floor: no standard deviation is below the median of those of all columns.
    """
    away = pool - np.median(pool, axis=0)
    unit = MAD_SCALE * np.median(np.abs(away), axis=0)
    if floor:
        unit = np.maximum(unit, np.median(unit))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(away == 0, 0.0, away / unit)


def _adjusted(standard: Numbers) -> Numbers:
    """Return the adjusted p-values of the first row of a standardized pool."""
    largest = standard.max(axis=1)
    return (largest[:, None] >= standard[0]).mean(axis=0)


def _threshold(pool: Numbers, detector: int, flagged: bool, limit: float) -> float:
    """Return the largest score of a detector, others as they are, that does not flag the model."""
    own = pool[0, detector]
    low, high = (-np.arcsinh(_LARGEST), own) if flagged else (own, np.arcsinh(_LARGEST))
    tried = pool.copy()
    for _ in range(_HALVINGS):
        tried[0, detector] = middle = (low + high) / 2
        if _adjusted(_standardized(tried))[detector] <= limit:
            high = middle
        else:
            low = middle
    return float(np.sinh(low))
