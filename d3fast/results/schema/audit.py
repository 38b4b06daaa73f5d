# SPDX-License-Identifier: Apache-2.0
"""Rows of inspect.json and card.json: a model, its detectors' results, a repair."""

from typing import Annotated, Literal

from msgspec import Meta, field

from d3fast.results.schema.fields import (
    MAX_ROWS,
    Count,
    Drawn,
    DrawnNonNegative,
    FileName,
    Fraction,
    Interval,
    Label,
    LongText,
    Name,
    NonNegative,
    Number,
    Picture,
    Points,
    Positive,
    Record,
    Row,
    Sha256,
    Text,
)

Role = Literal["suspect", "repaired"]
_TOLERANCE = 1e-6  # points: card.json may have been written with fewer digits


class MetricFields(Record, frozen=True, kw_only=True):
    """The fields of ``Metrics.as_dict``; rates are fractions.

    Attributes:
        acc: correct / images.
        asr: hits / triggered; ``None`` without a trigger.
        ra: robust / triggered.
        acc_interval: 95 % Wilson interval, likewise of the others.
        correct: clean samples answered correctly.
        images: clean samples.
        hits: triggered samples answered with the target class.
        robust: triggered samples answered correctly.
        triggered: triggered samples.
        untriggered: untriggered_hits / triggered; files of release 0.1 lack this and ``lift``.
        lift: asr - untriggered.
        untriggered_hits: these samples answered with the target class without the trigger.
        both_hits: these samples answered with the target class with and without it.
    """

    acc: Fraction | None = None
    asr: Fraction | None = None
    ra: Fraction | None = None
    untriggered: Fraction | None = None
    lift: Annotated[float, Meta(ge=-1, le=1)] | None = None
    acc_interval: Interval | None = None
    asr_interval: Interval | None = None
    ra_interval: Interval | None = None
    untriggered_interval: Interval | None = None
    lift_interval: Interval | None = None
    correct: Count
    images: Positive
    hits: Count | None = None
    robust: Count | None = None
    triggered: Count | None = None
    untriggered_hits: Count | None = None
    both_hits: Count | None = None

    def __post_init__(self) -> None:
        for name, whole in _PARTS.items():
            part, most = getattr(self, name) or 0, getattr(self, whole) or 0
            if part > most:
                raise ValueError(f"{name} must be <= {whole} ({most}), got {part}")


_PARTS = {
    "correct": "images",
    **dict.fromkeys(("hits", "robust", "untriggered_hits"), "triggered"),
    "both_hits": "hits",
}


class ModelRow(MetricFields, Row, frozen=True, kw_only=True, tag="model"):
    """One model and its accuracy.

    Attributes:
        role: the suspect or the repaired model.
        sha256: of the file with the weights.
        parameters: number of weights.
        head: qualified name of the classification head.
    """

    role: Role
    sha256: Sha256
    parameters: Count
    head: Name | None = None


class InversionRow(Row, frozen=True, kw_only=True, tag="inversion"):
    """The smallest trigger found for one class.

    Attributes:
        role: of the model.
        target: index of the class.
        name: of the class; ``class`` in JSON.
        norm: size of the trigger, in pixels or tokens.
        success: fraction of the samples that it turns into the class.
        index: anomaly index; ``None`` where it is infinite. Of tokens, their strength.
        outlier: the trigger is unusually small.
        picture: PNG as a data URI, not yet decoded.
        tokens: of a text classifier, the trigger as text.
    """

    role: Role
    target: Count
    name: Name = field(name="class")
    norm: NonNegative
    success: Fraction
    index: NonNegative | None = None
    outlier: bool
    picture: Picture | None = None
    tokens: Text | None = None


class DetectorRow(Row, frozen=True, kw_only=True, tag="sign"):
    """The score of one detector. JSON keeps the names of schema version 1: ``sign``, ``raised``.

    Attributes:
        role: of the model.
        name: of the detector.
        value: score; ``None`` where it is infinite or not defined (fewer than three classes).
        threshold: the detector flags the model above it.
        flagged: the score is above the threshold; ``raised`` in JSON.
        target: index of the class with the largest statistic.
        meaning: the result in one sentence.
        seconds: duration; ``None`` where it was not measured.
        p_value: share of clean models with as high a score; ``None`` without a calibration.
        adjusted_p_value: the same for the number of detectors.
    """

    role: Role
    name: Name
    value: Number | None = None
    threshold: Number
    flagged: bool = field(name="raised")
    target: Count | None = None
    meaning: Text
    seconds: DrawnNonNegative | None = None
    p_value: Fraction | None = None
    adjusted_p_value: Fraction | None = None


class VerdictRow(Row, frozen=True, kw_only=True, tag="verdict"):
    """The conclusion from all detectors.

    Attributes:
        role: of the model.
        suspicious: at least one detector flags the model.
        targets: classes that the flagging detectors name.
        text: the verdict in sentences.
        basis: on which kind of models the rates were measured; the first sentence of ``text``.
            Files of release 0.1 lack it.
        p_value: share of clean models that look like this; ``None`` without a calibration.
        rate: false alarms of all detectors together.
        calibration: SHA-256 of the calibration's file.
        clean_models: in the calibration.
    """

    role: Role
    suspicious: bool
    targets: Annotated[tuple[Count, ...], Meta(max_length=MAX_ROWS)]
    text: LongText
    basis: LongText | None = None
    p_value: Fraction | None = None
    rate: Fraction | None = None
    calibration: Sha256 | None = None
    clean_models: Count | None = None


class RepairRow(Row, frozen=True, kw_only=True, tag="repair"):
    """One repair.

    Attributes:
        preset: of the options.
        max_acc_drop: allowed loss of accuracy, points; ``None``: no limit.
        asked_acc_drop: the usual limit, where it was raised to what the samples can resolve.
        acc_drop: loss of accuracy on held-out samples, points.
        acc_drop_low: lower end of its 95 % interval.
        acc_drop_high: upper end.
        lost: held-out samples that only the suspect answers correctly; files of release 0.1 lack
            this and ``gained``, and their intervals are of independent samples.
        gained: samples that only the repaired model answers correctly.
        kept: the loss is within the limit.
        epochs: passes over the clean samples.
        recovery_epochs: how many of them, at the end, had no distance term.
        stopped: why the repair ended.
        restarted_blocks: number of last blocks that began at random weights; ``None`` in older
            files, and where weights were named instead.
        restart_searched: the number was searched for: the most that accuracy allows.
        seconds: duration.
        clean_weight: lambda at the end.
        distance: of the tracked weights.
        input_sha256: of the suspect's file.
        output: name of the repaired file.
        output_sha256: of that file.
        repair_samples: clean samples that gradients saw.
        held_out_samples: clean samples that they did not.
    """

    preset: Label
    max_acc_drop: Annotated[float, Meta(ge=0, le=100)] | None = None
    asked_acc_drop: Annotated[float, Meta(ge=0, le=100)] | None = None
    acc_drop: Points
    acc_drop_low: Points
    acc_drop_high: Points
    lost: Count | None = None
    gained: Count | None = None
    kept: bool
    epochs: Count
    recovery_epochs: Count | None = None
    stopped: Annotated[str, Meta(extra={"characters": 200})]
    restarted_blocks: Count | None = None
    restart_searched: bool = False
    seconds: DrawnNonNegative
    clean_weight: DrawnNonNegative
    distance: DrawnNonNegative | None = None
    input_sha256: Sha256
    output: FileName
    output_sha256: Sha256
    repair_samples: Count
    held_out_samples: Count

    def __post_init__(self) -> None:
        low, high = self.acc_drop_low - _TOLERANCE, self.acc_drop_high + _TOLERANCE
        if not low <= self.acc_drop <= high:
            raise ValueError(
                "acc_drop must be from acc_drop_low to acc_drop_high "
                f"({self.acc_drop_low:g} to {self.acc_drop_high:g}), got {self.acc_drop:g}"
            )
        if (self.recovery_epochs or 0) > self.epochs:
            raise ValueError(
                f"recovery_epochs must be <= epochs ({self.epochs}), got {self.recovery_epochs}"
            )

    @property
    def within_limit(self) -> bool:
        """The loss is within the limit, by ``kept`` and by the numbers."""
        limit = self.max_acc_drop
        return self.kept and (limit is None or self.acc_drop <= limit + _TOLERANCE)


class HeadlineRow(Row, frozen=True, kw_only=True, tag="headline"):
    """The conclusion of ``d3fast report``.

    Attributes:
        text: title of the page.
        basis: on which kind of models the detectors were calibrated.
        advice: what to do next.
        warnings: documents that do not belong to the others.
    """

    text: LongText
    basis: LongText
    advice: LongText
    warnings: tuple[LongText, ...] = ()


class FindingRow(Row, frozen=True, kw_only=True, tag="finding"):
    """One line of the verdict of ``d3fast report``.

    Attributes:
        question: that it answers.
        word: the answer in one or two words.
        state: ``"reached"``, ``"missed"`` or ``"unmeasured"``.
        text: the answer in a sentence.
        evidence: the numbers behind it.
    """

    question: Name
    word: Name
    state: Name
    text: LongText
    evidence: LongText


class EpochRow(Row, frozen=True, kw_only=True, tag="epoch"):
    """One epoch of a repair.

    Attributes:
        epoch: from 1.
        loss: mean over the samples, nats.
        accuracy: on the samples of the repair, a fraction.
        lr: learning rate.
        distance: of the tracked weights.
        val_accuracy: on held-out samples.
        clean_weight: lambda; ``None`` in recovery epochs.
    """

    epoch: Positive
    loss: Drawn
    accuracy: Fraction
    lr: Drawn | None = None
    distance: DrawnNonNegative | None = None
    val_accuracy: Fraction | None = None
    clean_weight: DrawnNonNegative | None = None


class LayerDistance(Record, frozen=True, kw_only=True):
    """Displacement of one tensor.

    Attributes:
        name: of the tensor.
        numel: number of weights.
        distance: norm of the displacement.
        norm: of the tensor before.
        relative: distance / norm; ``None`` where the norm is 0.
    """

    name: Name
    numel: Count | None = None
    distance: DrawnNonNegative | None = None
    norm: DrawnNonNegative | None = None
    relative: DrawnNonNegative | None = None


class LayerDistances(Row, frozen=True, kw_only=True, tag="distance"):
    """Displacement per layer between the suspect and the repaired model.

    Attributes:
        layers: in the model's order.
        total: of all weights as one vector.
    """

    layers: Annotated[tuple[LayerDistance, ...], Meta(max_length=MAX_ROWS)]
    total: LayerDistance | None = None
