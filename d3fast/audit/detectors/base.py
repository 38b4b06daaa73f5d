# SPDX-License-Identifier: Apache-2.0
"""The protocol of a detector, and ``run_detector``, which turns its statistics into a result."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.scores import MIN_CLASSES, outlier_score, threshold
from d3fast.results.format import significant
from d3fast.results.schema.audit import DetectorRow, Role


class Detector(Protocol):
    """The shape of every detector: a frozen dataclass of options that needs no arguments."""

    @property
    def name(self) -> str:
        """Short name, for tables and ``DETECTORS``."""

    @property
    def title(self) -> str:
        """The quantity that is compared between classes."""

    @property
    def spread(self) -> float:
        """Smallest unit of the score; see ``outlier_score``."""

    def __call__(self, context: InspectionContext) -> Sequence[float]:
        """Return one statistic per class, or per searched class; larger where likelier."""


@dataclass(frozen=True)
class DetectorResult:
    """The result of one detector on one model.

    Attributes:
        name: of the detector.
        value: score of the largest statistic; ``None`` where it is not defined (fewer than three
            classes), infinite where all others are equal.
        threshold: the detector flags the model above it.
        target: class with the largest statistic; ``None`` along with ``value``.
        subject: what is largest for which class; the beginning of ``meaning``.
        details: more sentences.
        p_value: conformal, of this detector alone; ``None`` without a calibration.
        adjusted_p_value: for the number of detectors; see ``d3fast.audit.conformal``.
        decision: of a calibration, in place of the threshold; ``None`` without one. It is ``False``
            where the calibration has no score of this detector.
        statistics: one per class, six digits; empty where the detector did not look at every class.
        title: the quantity that is compared between classes.
    """

    name: str
    value: float | None
    threshold: float
    target: int | None
    subject: str
    details: str = ""
    p_value: float | None = None
    adjusted_p_value: float | None = None
    decision: bool | None = None
    statistics: tuple[float, ...] = ()
    title: str = ""

    @property
    def flagged(self) -> bool:
        """The score is above the threshold, or the calibration says so."""
        if self.decision is not None:
            return self.decision
        return self.value is not None and self.value > self.threshold

    @property
    def counts(self) -> bool:
        """The detector can flag the model: there is no calibration, or it has scores of it."""
        return self.decision is None or self.p_value is not None

    @property
    def largest(self) -> int:
        """The class with the largest statistic, whether or not there is a score."""
        if self.target is not None:
            return self.target
        return max(range(len(self.statistics)), key=self.statistics.__getitem__)

    def alone(self, spread: float) -> tuple[float | None, int]:
        """Return the score of the model by itself and its class, whatever a calibration says.

        Args:
            spread: of the detector.
        """
        if len(self.statistics) < MIN_CLASSES:
            return self.value, self.largest
        value, target = outlier_score(self.statistics, spread)
        assert target is not None
        return value, target

    @property
    def meaning(self) -> str:
        """The result in a sentence or two."""
        if self.value is None:
            return f"{self.subject}.{self.details}"
        if not self.counts:
            return f"{self.subject}, which the calibration has no score of.{self.details}"
        verb = "is above the threshold" if self.flagged else "is below the threshold"
        share = "" if self.p_value is None else f" (p = {significant(self.p_value, 2)})"
        return f"{self.subject}, which {verb}{share}.{self.details}"

    def row(self, role: Role) -> DetectorRow:
        """Return the row of a results file; JSON has no infinite score."""
        finite = self.value is not None and math.isfinite(self.value)
        return DetectorRow(
            role=role,
            name=self.name,
            value=self.value if finite else None,
            threshold=self.threshold,
            flagged=self.flagged,
            target=self.target,
            meaning=self.meaning,
            p_value=self.p_value,
            adjusted_p_value=self.adjusted_p_value,
        )


def run_detector(
    detector: Detector, context: InspectionContext, names: Sequence[str], rate: float
) -> DetectorResult:
    """Return the result of a detector on a model.

    Args:
        detector: the detector.
        context: the model and its samples.
        names: of the classes.
        rate: of false alarms, were the statistics of a clean model normally distributed.

    Raises:
        ValueError: what the detector raises; a statistic that is NaN or inf.
    """
    statistics = tuple(float(statistic) for statistic in detector(context))
    try:
        value, target = outlier_score(statistics, detector.spread)
    except ValueError as error:
        raise ValueError(f"detector {detector.name}: {error}") from None
    limit = threshold(max(len(statistics), MIN_CLASSES), rate)
    if target is not None and len(statistics) == len(context.searched):
        target = context.searched[target]  # the same number where no sample was drawn
    subject = f"{detector.title}: not comparable with fewer than {MIN_CLASSES} classes"
    if target is not None:
        subject = f"{detector.title}: highest for {short_name(names[target])}"
    return DetectorResult(
        detector.name,
        value,
        limit,
        target,
        subject,
        statistics=_rounded(statistics) if len(statistics) == context.classes else (),
        title=detector.title,
    )


def _rounded(statistics: Sequence[float]) -> tuple[float, ...]:
    """Return numbers as a file has them, so that a model equals itself in a calibration."""
    return tuple(float(f"{statistic:.6g}") for statistic in statistics)


def short_name(name: str, most: int = 30) -> str:
    """Return a class name in quotes, cut to ``most`` characters: names come from untrusted data."""
    return repr(name if len(name) <= most else name[: most - 1] + "…")
