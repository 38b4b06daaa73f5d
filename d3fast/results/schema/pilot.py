# SPDX-License-Identifier: Apache-2.0
"""Rows of pilot.json: short repairs with several settings, and the recommended one."""

from typing import Annotated

from msgspec import Meta

from d3fast.results.schema.fields import (
    MAX_ROWS,
    Change,
    Count,
    Drawn,
    DrawnNonNegative,
    Fraction,
    Label,
    NonNegative,
    Points,
    Positive,
    Record,
    Row,
    Text,
)

Means = Annotated[tuple[Fraction | None, ...], Meta(max_length=50)]


class HeldOutFields(Record, frozen=True, kw_only=True):
    """Rates of a model on the held-out samples, as fractions.

    Attributes:
        acc: accuracy.
        correct: samples answered correctly.
        samples: held-out samples.
        both: samples that the suspect answers correctly too; files of release 0.1 lack it.
        acc_low: lower end of the 95 % interval of ``acc``.
        acc_high: upper end.
        inversion_asr: success rate of the suspect's inverted triggers.
        asr: success rate of a known trigger.
        inversion_lift: ``inversion_asr`` minus the share of the same images that the same model
            gives the class without the trigger; files of release 0.1 lack the lifts.
        lift: the same of ``asr``.
    """

    acc: Fraction
    correct: Count
    samples: Positive
    both: Count | None = None
    acc_low: Fraction
    acc_high: Fraction
    inversion_asr: Fraction | None = None
    asr: Fraction | None = None
    inversion_lift: Change | None = None
    lift: Change | None = None

    def __post_init__(self) -> None:
        if self.correct > self.samples:
            raise ValueError(f"correct must be <= samples ({self.samples}), got {self.correct}")

    @property
    def attack_rate(self) -> float | None:
        """Success rate of the known trigger where there is one, else of the inverted ones."""
        return self.inversion_asr if self.asr is None else self.asr

    @property
    def attack_lift(self) -> float | None:
        """Lift of the trigger behind ``attack_rate``; ``None`` in files of release 0.1."""
        return self.inversion_lift if self.asr is None else self.lift


class PilotSuspectRow(HeldOutFields, Row, frozen=True, kw_only=True, tag="suspect"):
    """The suspect before any repair.

    Attributes:
        targets: classes of the inverted triggers.
        flagged: these triggers are outliers; otherwise the smallest one is used.
    """

    targets: Annotated[tuple[Count, ...], Meta(max_length=MAX_ROWS)] = ()
    flagged: bool | None = None


class SettingFields(Record, frozen=True, kw_only=True):
    """The three options that a pilot varies.

    Attributes:
        distance_weight: w.
        clean_weight: lambda.
        epsilon: bound on the clean loss, nats.
    """

    distance_weight: DrawnNonNegative
    clean_weight: DrawnNonNegative
    epsilon: DrawnNonNegative


class TrialRow(HeldOutFields, Row, frozen=True, kw_only=True, tag="trial"):
    """One setting on one rung.

    Attributes:
        trial: number of the setting.
        rung: of successive halving, from 0.
        epochs: of the repair.
        distance_weight: w; this and the next two are the setting, as in ``SettingFields``.
        clean_weight: lambda.
        epsilon: bound on the clean loss, nats.
        distance: of the tracked weights, relative to their norm.
        seconds: of the repair.
        pareto: no other trial of the rung is better in both rates; known when the rung is complete.
    """

    trial: Count
    rung: Count
    epochs: Count
    distance_weight: DrawnNonNegative
    clean_weight: DrawnNonNegative
    epsilon: DrawnNonNegative
    distance: DrawnNonNegative | None = None
    seconds: DrawnNonNegative
    pareto: bool = False


class FailedRow(SettingFields, Row, frozen=True, kw_only=True, tag="failed"):
    """A setting whose repair failed.

    Attributes:
        trial: number of the setting.
        rung: of successive halving, from 0.
        epochs: of the repair.
        reason: the error text.
    """

    trial: Count
    rung: Count
    epochs: Count
    reason: Text


class SensitivityRow(Row, frozen=True, kw_only=True, tag="sensitivity"):
    """Mean rates by the value of one option, over the first rung.

    Attributes:
        parameter: name of the option.
        values: that were tried.
        acc: mean accuracy, one per value.
        inversion_asr: mean success rate of the inverted triggers, one per value.
        acc_range: largest minus smallest mean accuracy.
        asr_range: the same for the success rate.
    """

    parameter: Label
    values: Annotated[tuple[Drawn, ...], Meta(max_length=50)]
    acc: Means
    inversion_asr: Means
    acc_range: Fraction | None = None
    asr_range: Fraction | None = None

    def __post_init__(self) -> None:
        for name, means in (("acc", self.acc), ("inversion_asr", self.inversion_asr)):
            if len(means) != len(self.values):
                raise ValueError(
                    f"{name} must be of length {len(self.values)}, one per value, got {len(means)}"
                )


class RecommendationRow(SettingFields, Row, frozen=True, kw_only=True, tag="recommendation"):
    """The recommended setting.

    Attributes:
        trial: its number.
        rung: that it was measured on.
        within: its loss of accuracy is within the limit.
        acc_drop: loss of accuracy against the suspect, points.
        acc_drop_low: lower end of its paired 95 % interval.
        acc_drop_high: upper end.
        epochs: of a whole repair.
        seconds_per_epoch: measured.
        seconds: estimated, of a whole repair.
        why: the reason.
    """

    trial: Count
    rung: Count | None = None
    within: bool | None = None
    acc_drop: Points | None = None
    acc_drop_low: Points | None = None
    acc_drop_high: Points | None = None
    epochs: Count | None = None
    seconds_per_epoch: NonNegative | None = None
    seconds: NonNegative | None = None
    why: Text
