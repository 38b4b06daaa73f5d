# SPDX-License-Identifier: Apache-2.0
"""Rows of ``d3fast benchmark`` and ``d3fast demo``: one model, one seed.

A row without numbers says why in ``refused``: a floor violation, or a defence that failed. Rates
are fractions. JSON of ``d3fast benchmark attacks`` and ``d3fast demo`` has no field ``kind``.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from d3fast.io.untrusted import printable
from d3fast.results.schema.fields import (
    Change,
    Count,
    Fraction,
    Interval,
    Label,
    Name,
    NonNegative,
    Number,
    Record,
    Row,
    Text,
    read_record,
    tag_of,
)

_Curve = Annotated[tuple[Fraction, ...], Meta(max_length=1000)]


class RateFields(Record, frozen=True, kw_only=True):
    """A model on clean and triggered test images.

    Attributes:
        acc: accuracy; with its 95 % interval and counts as in ``Metrics``, like the next two.
        asr: attack success rate.
        ra: robust accuracy.
        untriggered: share of the images behind ``asr`` that get the target without the trigger;
            files of release 0.1 lack this and ``lift``.
        lift: asr - untriggered.
    """

    acc: Fraction | None = None
    asr: Fraction | None = None
    ra: Fraction | None = None
    untriggered: Fraction | None = None
    lift: Change | None = None
    acc_interval: Interval | None = None
    asr_interval: Interval | None = None
    ra_interval: Interval | None = None
    untriggered_interval: Interval | None = None
    lift_interval: Interval | None = None
    correct: Count | None = None
    images: Count | None = None
    hits: Count | None = None
    robust: Count | None = None
    triggered: Count | None = None
    untriggered_hits: Count | None = None
    both_hits: Count | None = None

    def to_row(self) -> dict[str, Any]:
        """Return the JSON fields; those of the lift only where it was measured."""
        row = super().to_row()
        return {name: row[name] for name in row if row[name] is not None or name not in _LIFT}


_LIFT = {"untriggered", "lift", "untriggered_interval", "lift_interval"}
_LIFT |= {"untriggered_hits", "both_hits"}


class MeasuredFields(RateFields, frozen=True, kw_only=True):
    """A model beside the clean model.

    Attributes:
        floor: ASR of the clean model.
        ra_ceiling: RA of the clean model.
        asr_excess: asr - floor.
        acc_loss: accuracy lost against the suspect, or of an attack against the clean model.
        der: defence effectiveness rating.
        distance: of the tracked weights from the suspect's.
        seconds: of training or repair.
        refused: why the row has no numbers.
    """

    floor: Fraction | None = None
    ra_ceiling: Fraction | None = None
    asr_excess: Change | None = None
    acc_loss: Change | None = None
    der: Fraction | None = None
    distance: NonNegative | None = None
    seconds: NonNegative | None = None
    refused: Text | None = None


class Ablation(Record, frozen=True, kw_only=True):
    """One point of an ablation.

    Attributes:
        factor: name of the option that is varied.
        value: of the option.
    """

    factor: Name
    value: Any = None


class GridFields(MeasuredFields, frozen=True, kw_only=True):
    """Position of a row in the grid of attacks, defences and seeds.

    Attributes:
        defense: label of the defence, or of a model that no defence repaired.
        ablation: ``None`` in the grid itself.
        seed: of everything random.
        data: name of the data set.
        model: name of the architecture.
        attack: name of the attack.
        adaptive: the adaptive attacker around it, or ``None``.
        ratio: of poisoned training samples.
        clean: the defender's clean samples.
        options: of the attack or of the defences.
        epochs: of training or repair.
        val_accuracy: on the defender's held-out samples.
    """

    defense: Name
    ablation: Ablation | None = None
    seed: Count
    data: Name | None = None
    model: Name | None = None
    attack: Name | None = None
    adaptive: Name | None = None
    ratio: Fraction | None = None
    clean: Count | None = None
    options: Any = None
    epochs: Count | None = None
    val_accuracy: Fraction | None = None

    # Fields that the JSON of a measured model leaves out where they are ``None``.
    unmeasured: ClassVar[tuple[str, ...]] = ("distance",)

    def to_row(self) -> dict[str, Any]:
        """Return the JSON fields; with a reason in ``refused``, only those numbers that exist."""
        row = super().to_row()
        absent = _NUMBERS if self.refused else self.unmeasured
        names = dict.fromkeys((*_POSITION, *row))
        return {name: row[name] for name in names if row[name] is not None or name not in absent}


_NUMBERS = {*MeasuredFields.__struct_fields__, "epochs", "val_accuracy", "chosen"} - {"refused"}
# These fields come first in the JSON.
_POSITION = (
    *("kind", "defense", "ablation", "seed", "data", "model"),
    *("attack", "adaptive", "options", "ratio", "clean"),
)


class CleanRow(GridFields, Row, frozen=True, kw_only=True, tag="clean"):
    """A model that was never poisoned."""

    unmeasured: ClassVar[tuple[str, ...]] = (
        *("floor", "ra_ceiling", "asr_excess", "acc_loss", "der", "distance"),
        *("options", "epochs", "val_accuracy"),
    )


class SuspectRow(GridFields, Row, frozen=True, kw_only=True, tag="suspect"):
    """A backdoored model."""


class DefenseRow(GridFields, Row, frozen=True, kw_only=True, tag="repair"):
    """A backdoored model after a defence.

    Attributes:
        chosen: options that the defence decided by itself, such as the number of restarted blocks.
    """

    chosen: dict[str, Any] | None = None

    unmeasured: ClassVar[tuple[str, ...]] = ("distance", "chosen")


class SubjectFields(Record, frozen=True, kw_only=True):
    """The model that a further test is about.

    Attributes:
        defense: label of the defence.
        ablation: ``None``.
        seed: of everything random.
        data: name of the data set.
        model: name of the architecture.
        attack: name of the attack.
        adaptive: the adaptive attacker around it, or ``None``.
        ratio: of poisoned training samples.
        clean: the defender's clean samples.
    """

    defense: Name
    ablation: Ablation | None = None
    seed: Count
    data: Name | None = None
    model: Name | None = None
    attack: Name
    adaptive: Name | None = None
    ratio: Fraction | None = None
    clean: Count | None = None


class RelearningRow(SubjectFields, Row, frozen=True, kw_only=True, tag="relearning"):
    """A model fine-tuned on a few poisoned samples.

    Attributes:
        ks: numbers of poisoned samples.
        acc: accuracy, one per number.
        asr: attack success rate, one per number.
        regained: part of the suspect's ASR that came back, one per number.
        area: below ``regained``.
        before: metrics before the first poisoned sample.
        refused: why the row has no numbers.
    """

    ks: Annotated[tuple[Count, ...], Meta(max_length=1000)] = ()
    acc: _Curve = ()
    asr: _Curve = ()
    regained: Annotated[tuple[Number, ...], Meta(max_length=1000)] = ()
    area: Number | None = None
    before: RateFields | None = None
    refused: Text | None = None

    def __post_init__(self) -> None:
        for name in ("acc", "asr", "regained"):
            length = len(getattr(self, name))
            if length not in (0, len(self.ks)):
                raise ValueError(f"{name} must be of length {len(self.ks)}, got {length}")

    def to_row(self) -> dict[str, Any]:
        """Return the JSON fields; with a reason in ``refused``, without curves."""
        row = super().to_row()
        row["before"] = self.before and self.before.to_row()
        absent = ("ks", "acc", "asr", "regained", "area", "before") if self.refused else ()
        return {name: value for name, value in row.items() if name not in absent}


class ReactivationRow(SubjectFields, Row, frozen=True, kw_only=True, tag="reactivation"):
    """A model under the trigger and a small universal perturbation.

    Attributes:
        before: metrics under the plain trigger.
        white_box: under the trigger and a perturbation found on the model.
        untriggered: under a perturbation found on the model without the trigger.
        transfer: under the trigger and a perturbation found on the attacker's model.
        lift: ASR of ``white_box`` minus that of ``untriggered``.
        existence: backdoor existence coefficient.
        refused: why the row has no numbers.
    """

    before: RateFields | None = None
    white_box: RateFields | None = None
    untriggered: RateFields | None = None
    transfer: RateFields | None = None
    lift: Change | None = None
    existence: Number | None = None
    refused: Text | None = None


GridRow = CleanRow | SuspectRow | DefenseRow | RelearningRow | ReactivationRow
_GRID_ROWS: Mapping[str, type[GridRow]] = {
    tag_of(kind): kind
    for kind in (CleanRow, SuspectRow, DefenseRow, RelearningRow, ReactivationRow)
}


def read_grid(rows: Iterable[Mapping[str, Any]]) -> list[GridRow]:
    """Return the rows of a grid from their JSON.

    Raises:
        ValueError: a row of another kind, or one that cannot be read.

    Example:
        >>> (row,) = read_grid([{"kind": "repair", "defense": "d3", "seed": 0, "acc": 0.9}])
        >>> type(row).__name__, row.acc
        ('DefenseRow', 0.9)
    """
    return [_grid_row(row) for row in rows]


def _grid_row(row: Mapping[str, Any]) -> GridRow:
    kind = str(row.get("kind"))
    if kind not in _GRID_ROWS:
        raise ValueError(f"kind must be one of {', '.join(_GRID_ROWS)}, got {printable(kind, 60)}")
    return read_record(row, _GRID_ROWS[kind], f"{kind} row")


class AttackRow(MeasuredFields, frozen=True, kw_only=True):
    """One attack on one seed, of ``d3fast benchmark attacks``.

    Attributes:
        seed: of everything random.
        attack: name of the attack; ``clean`` for the clean model.
        adaptive: the adaptive attacker around it, or ``None``.
        ratio: of poisoned training samples.
        target: the target class.
        mapping: ``all-to-one`` or ``all-to-all``.
        learning_seconds: to learn the trigger.
        options: of the attack.
    """

    seed: Count
    attack: Name
    adaptive: Name | None = None
    ratio: Fraction | None = None
    target: Count | None = None
    mapping: Label | None = None
    learning_seconds: NonNegative | None = None
    options: Any = None

    def to_row(self) -> dict[str, Any]:
        """Return the JSON fields without those that were not measured."""
        named = {"seed": self.seed, "attack": self.attack, "adaptive": self.adaptive}
        kept = _CLEAN_NULL if self.attack == "clean" else ("refused",)
        row = super().to_row()
        measured = {name: row[name] for name in row if row[name] is not None or name in kept}
        return {**named, **measured}


# Fields of a clean model that its JSON has though they are ``None``: it has no trigger.
_CLEAN_NULL = ("asr", "ra", "asr_interval", "ra_interval")


def read_attacks(rows: Iterable[Mapping[str, Any]]) -> list[AttackRow]:
    """Return the rows of ``d3fast benchmark attacks`` from their JSON.

    Raises:
        ValueError: a row that cannot be read.
    """
    return [read_record(row, AttackRow, "attack row") for row in rows]


class DemoRow(RateFields, frozen=True, kw_only=True):
    """One model of ``d3fast demo`` on one seed.

    Attributes:
        seed: of everything random.
        model: label of the model.
        acc: accuracy.
        asr: attack success rate.
        asr_excess: asr - floor.
        acc_loss: accuracy lost against the backdoored model; of a repaired model.
        der: defence effectiveness rating; of a repaired model.
        floor: ASR of the clean model.
        ra_ceiling: RA of the clean model.
        distance: of the tracked weights from those of the backdoored model.
        seconds: of training or repair.
    """

    seed: Count
    model: Name
    acc: Fraction
    asr: Fraction
    asr_excess: Change
    acc_loss: Change | None = None
    der: Fraction | None = None
    floor: Fraction
    ra_ceiling: Fraction | None = None
    distance: NonNegative | None = None
    seconds: NonNegative

    def to_row(self) -> dict[str, Any]:
        """Return the JSON fields, ``seed`` and ``model`` first."""
        return {"seed": self.seed, "model": self.model, **super().to_row()}


def read_demo(rows: Iterable[Mapping[str, Any]]) -> list[DemoRow]:
    """Return the rows of ``d3fast demo`` from their JSON.

    Raises:
        ValueError: a row that cannot be read.
    """
    return [read_record(row, DemoRow, "demo row") for row in rows]
