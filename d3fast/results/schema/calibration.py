# SPDX-License-Identifier: Apache-2.0
"""Rows of a calibration: what was trained, and the scores of every model."""

from typing import Annotated

from msgspec import Meta

from d3fast.results.schema.fields import (
    MAX_ROWS,
    Count,
    Fraction,
    LongText,
    Name,
    Number,
    Positive,
    Record,
    Row,
    Sha256,
)

_MAX_DETECTORS = 100


class CalibrationRow(Row, frozen=True, kw_only=True, tag="calibration"):
    """What the models of a calibration have in common.

    Attributes:
        model: how a command line names the architecture.
        architecture: digest of names and shapes of its weights.
        data: name of the samples.
        samples_sha256: their fingerprint.
        shape: (C, H, W) of an image.
        classes: number of classes.
        train: number of samples that each model was trained on.
        epochs: passes over them.
        inspected: largest number of other samples that each was inspected with.
        options: of the inspection that change scores, as JSON.
        classes_sha256: digest of the names of the classes; ``None`` in files of release 0.1.
    """

    model: Name
    architecture: Sha256
    data: Name
    samples_sha256: Sha256
    shape: tuple[Positive, Positive, Positive]
    classes: Positive
    train: Positive
    epochs: Positive
    inspected: Positive
    options: LongText
    classes_sha256: Sha256 | None = None


class DetectorScore(Record, frozen=True, kw_only=True):
    """The score of one detector.

    Attributes:
        name: of the detector.
        value: score; ``None`` where it is infinite, and of two classes, where it is not defined.
        target: class with the largest statistic.
        statistics: one per class; ``None`` where it did not look at every class, and in files of
            release 0.1.
    """

    name: Name
    value: Number | None
    target: Count
    statistics: Annotated[tuple[Number, ...], Meta(min_length=1, max_length=MAX_ROWS)] | None = None


class ScoredModelRow(Row, frozen=True, kw_only=True, tag="scored"):
    """A model of a calibration and its scores.

    Attributes:
        seed: of the model.
        attack: that it was trained with; ``None`` for a clean model.
        target: target class of the attack.
        acc: on samples that it was not trained on.
        asr: of the trigger on them.
        scores: of the detectors.
    """

    seed: Count
    attack: Name | None = None
    target: Count | None = None
    acc: Fraction
    asr: Fraction | None = None
    scores: Annotated[tuple[DetectorScore, ...], Meta(min_length=1, max_length=_MAX_DETECTORS)]
