# SPDX-License-Identifier: Apache-2.0
"""Scores of clean models of one architecture, and the p-values that they give to another's scores.

    read_calibration     reads a file of ``d3fast calibrate``
    fitting_calibration  finds a file of the package that fits a model
    Calibration          ``apply`` turns the scores of detectors into p-values

docs/inspect.md says what a p-value means, and when the clean models are comparable.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean, pvariance

from torch import nn

from d3fast.audit.architecture import architecture_digest
from d3fast.audit.conformal import (
    ScoreTest,
    adjusted_p_values,
    per_class_scores,
    resolved_rate,
    score_test,
)
from d3fast.audit.detectors.base import DetectorResult, short_name
from d3fast.audit.inversion import InversionOptions
from d3fast.io.files import sha256
from d3fast.io.untrusted import printable
from d3fast.results.schema.calibration import CalibrationRow, DetectorScore, ScoredModelRow
from d3fast.results.schema.fields import read_only_row, read_rows
from d3fast.results.store import Results, read_results
from d3fast.training.metrics import Metrics

SHIPPED = Path(__file__).parent / "calibrations"
_WORKS = 0.5  # ASR from which a backdoored model of a calibration counts
_UNLIKE = 2.0  # standard deviations from the mean ACC: about one comparable model in 20 is further


def classes_digest(names: Sequence[str]) -> str:
    """Return the SHA-256 of the names of classes, in hex; their order counts.

    Example:
        >>> classes_digest(["cat", "dog"]) == classes_digest(["dog", "cat"])
        False
    """
    return hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()


def options_text(inversion: InversionOptions, classes: int) -> str:
    """Return the options of an inspection that change scores, as JSON.

    Args:
        inversion: of triggers.
        classes: largest number of classes that are searched.
    """
    return json.dumps({"classes": classes, "inversion": asdict(inversion)}, sort_keys=True)


@dataclass(frozen=True)
class Calibrated:
    """What a calibration says of one model.

    Attributes:
        model: the architecture, as a command line names it.
        data: what its clean models were trained on.
        p_value: over all detectors that count.
        rate: false alarms of all of them together.
        models: number of clean models.
        sha256: of the calibration's file.
        uncounted: detectors that the calibration has no scores of.
        found: how many backdoored models of the calibration these detectors flag at this rate.
        backdoored: number of these models.
        attacks: of them.
        largest: the largest standardized score; it orders models that share a p-value.
        accuracies: ACC of the model and mean ACC of the clean models, where they differ by more
            than chance; see ``Calibration.unlike``.
    """

    model: str
    data: str
    p_value: float
    rate: float
    models: int
    sha256: str
    uncounted: tuple[str, ...] = ()
    found: int = 0
    backdoored: int = 0
    attacks: tuple[str, ...] = ()
    largest: float = 0.0
    accuracies: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Calibration:
    """The content of a calibration's file.

    Attributes:
        about: what the models have in common.
        models: their scores.
        sha256: of the file.
    """

    about: CalibrationRow
    models: tuple[ScoredModelRow, ...]
    sha256: str

    @property
    def clean(self) -> tuple[ScoredModelRow, ...]:
        """The models without a backdoor."""
        return tuple(model for model in self.models if model.attack is None)

    @property
    def detectors(self) -> tuple[str, ...]:
        """Detectors that every model has a score of."""
        named = [[score.name for score in model.scores] for model in self.models]
        return tuple(name for name in named[0] if all(name in names for names in named))

    def mismatch(
        self,
        model: nn.Module,
        shape: Sequence[int] | None,
        options: str | None,
        classes: Sequence[str] | None = None,
    ) -> str | None:
        """Return why the scores cannot be compared with those of a model, or ``None``.

        Args:
            model: inspected.
            shape: (C, H, W) of its images; ``None`` where none was seen.
            options: of ``options_text``; ``None`` for detectors that have none.
            classes: names of the classes; ``None`` where they are not known.
        """
        about = self.about
        if about.architecture != architecture_digest(model):
            return f"its models are of another architecture ({about.model})"
        if shape is not None and tuple(shape) != about.shape:
            return f"its images are {'x'.join(map(str, about.shape))}"
        if options is not None and options != about.options:
            return "it was made with other options of the inspection (steps or classes)"
        if classes is not None and about.classes_sha256 not in (None, classes_digest(classes)):
            return "its classes have other names, or another order"
        return None

    def unlike(self, metrics: Metrics) -> tuple[float, float] | None:
        """Return the ACC of a model and the mean of the clean models if they differ too much.

        The limit is two standard deviations, those of the clean models and of a measurement on so
        few samples together. An ACC of 1 is not judged: samples without labels have the model's
        own answers in their place.

        Args:
            metrics: of the model, on the samples of its inspection.
        """
        accuracies = [model.acc for model in self.clean]
        mean = fmean(accuracies)
        variance = pvariance(accuracies, mean) + mean * (1 - mean) / metrics.images
        if metrics.acc == 1 or abs(metrics.acc - mean) <= _UNLIKE * math.sqrt(variance):
            return None
        return metrics.acc, mean

    def apply(
        self,
        results: Sequence[DetectorResult],
        rate: float,
        classes: Sequence[str],
        metrics: Metrics | None = None,
    ) -> tuple[tuple[DetectorResult, ...], Calibrated | None]:
        """Return results with p-values, and what they say together.

        Args:
            results: of the detectors.
            rate: wanted false alarms of all detectors together.
            classes: names of the classes.
            metrics: of the model; ``None`` where no sample was seen.

        Returns:
            The results as they are and ``None`` where the calibration has a score of none of them.
            Detectors that it has no score of cannot flag the model.
        """
        known = set(self.detectors)
        own = {r.name: _score_of(r) for r in results if r.name in known and _comparable(r)}
        if not own:
            return tuple(results), None
        compared = self._compare(own)
        limit = resolved_rate(rate, len(self.clean))
        found = score_test(compared.own, compared.clean, rate)
        at = {name: place for place, name in enumerate(own)}
        rated = tuple(
            _rated(result, found, compared, at[result.name], limit, classes)
            if result.name in at
            else replace(result, decision=False)
            for result in results
        )
        backdoored = [m for m in self.models if m.attack is not None and (m.asr or 0) >= _WORKS]
        others = (self._compare({name: _by_name(m)[name] for name in own}) for m in backdoored)
        adjusted = [adjusted_p_values(each.own, each.clean) for each in others]
        return rated, Calibrated(
            model=self.about.model,
            data=self.about.data,
            p_value=found.p_value,
            rate=limit,
            models=len(self.clean),
            sha256=self.sha256,
            uncounted=tuple(result.name for result in results if result.name not in at),
            found=sum(min(each) <= limit for each in adjusted),
            backdoored=len(backdoored),
            attacks=tuple(dict.fromkeys(str(model.attack) for model in backdoored)),
            largest=found.largest,
            accuracies=None if metrics is None else self.unlike(metrics),
        )

    def clean_scores(self, detector: str) -> tuple[float, ...]:
        """Return the scores of the clean models by a detector, compared with each other."""
        return _compared([_by_name(model)[detector] for model in self.clean])[0]

    def _compare(self, own: Mapping[str, DetectorScore]) -> "_Compared":
        """Return the scores of a model and of the clean ones, one per detector of the model."""
        pools = ([score, *(_by_name(m)[name] for m in self.clean)] for name, score in own.items())
        columns, targets = zip(*map(_compared, pools), strict=True)
        first, *clean = zip(*columns, strict=True)
        return _Compared(first, tuple(clean), targets)


def _compared(pool: Sequence[DetectorScore]) -> tuple[tuple[float, ...], int | None]:
    """Return the scores of a pool of models by one detector, and the class of the first one.

    The class is ``None`` where the statistics of a model are missing: its own scores are taken.
    """
    statistics = [score.statistics for score in pool if score.statistics is not None]
    if len(statistics) < len(pool) or len(set(map(len, statistics))) > 1:
        return tuple(math.inf if score.value is None else score.value for score in pool), None
    scores, classes = per_class_scores(statistics)
    return tuple(scores.tolist()), int(classes[0])


@dataclass(frozen=True)
class _Compared:
    """Scores of one model and of clean ones, per detector, and the classes of the former."""

    own: tuple[float, ...]
    clean: tuple[tuple[float, ...], ...]
    targets: tuple[int | None, ...]


def _by_name(model: ScoredModelRow) -> dict[str, DetectorScore]:
    return {score.name: score for score in model.scores}


def _comparable(result: DetectorResult) -> bool:
    """Return whether a result has a score, or statistics: of two classes it has these alone."""
    return result.target is not None or len(result.statistics) > 1


def _score_of(result: DetectorResult) -> DetectorScore:
    return DetectorScore(
        name=result.name,
        value=result.value,
        target=result.largest,
        statistics=result.statistics or None,
    )


def _rated(
    result: DetectorResult,
    found: ScoreTest,
    compared: _Compared,
    at: int,
    limit: float,
    classes: Sequence[str],
) -> DetectorResult:
    """Return a result with its p-values; the score and the class are those of the comparison."""
    rated = replace(
        result,
        value=compared.own[at],
        p_value=found.p_values[at],
        adjusted_p_value=found.adjusted[at],
        threshold=found.thresholds[at],
        decision=found.adjusted[at] <= limit,
    )
    target = compared.targets[at]
    if target is None:
        return rated
    subject = f"{result.title}, against clean models: highest for {short_name(classes[target])}"
    return replace(rated, target=target, subject=subject)


def parse_calibration(results: Results, digest: str) -> Calibration:
    """Check the rows of a calibration.

    Args:
        results: of its file, which may be hostile.
        digest: SHA-256 of the file.

    Raises:
        ValueError: a row that cannot be read; no row about the models, or no clean model.
    """
    about = read_only_row(results.rows, CalibrationRow)
    models = read_rows(results.rows, ScoredModelRow)
    found = None if about is None else Calibration(about, models, digest)
    if found is None or not found.clean or not found.detectors:
        raise ValueError("a calibration must hold clean models with scores of the same detectors")
    return found


def read_calibration(path: str | Path) -> Calibration:
    """Read a file of ``d3fast calibrate``; it may be hostile.

    Raises:
        ValueError: another document, or rows that cannot be read.
        OSError: a file that cannot be opened.
    """
    path = Path(path)
    try:
        return parse_calibration(read_results(path), sha256(path))
    except ValueError as error:
        raise ValueError(f"{printable(path.name)}: {error}") from None


@lru_cache(maxsize=1)
def shipped_calibrations() -> tuple[Calibration, ...]:
    """Return the calibrations that come with the package."""
    return tuple(map(read_calibration, sorted(SHIPPED.glob("*.json"))))


def fitting_calibration(
    given: Calibration | None,
    model: nn.Module,
    shape: Sequence[int] | None = None,
    options: str | None = None,
    classes: Sequence[str] | None = None,
) -> Calibration | None:
    """Return the calibration to use for a model, or ``None`` where there is none.

    Args:
        given: by the user; one of the package is looked for if ``None``.
        model: inspected.
        shape: of its images; see ``Calibration.mismatch``, also for ``options``.
        options: of the inspection.
        classes: names of the classes.

    Raises:
        ValueError: the given one does not fit.
    """
    if given is not None:
        reason = given.mismatch(model, shape, options, classes)
        if reason is not None:
            raise ValueError(f"the calibration does not fit: {reason}")
        return given
    for found in shipped_calibrations():
        if found.mismatch(model, shape, options, classes) is None:
            return found
    return None
