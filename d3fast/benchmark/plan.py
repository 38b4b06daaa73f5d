# SPDX-License-Identifier: Apache-2.0
"""What a benchmark of attacks x defences x seeds consists of, before anything is run.

A ``GridPreset`` says it in the words of the table, ``plan`` spells it out as jobs: clean twins,
suspects, repairs, and the relearning test of some models.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from d3fast.benchmark.attack_jobs import AttackJob, CleanJob, Preset, twin_of
from d3fast.benchmark.relearning import KS, RelearnConfig
from d3fast.benchmark.relearning_jobs import RelearningJob
from d3fast.benchmark.repair_jobs import Repair, RepairJob, suspect_row
from d3fast.data import AUGMENTATIONS
from d3fast.results.jobs import Job, Row, key_of
from d3fast.runtime.checks import check_choice

Attacks = tuple[tuple[str, str | None], ...]
NONE, CLEAN = "none", "clean twin"  # what rows of suspects and of their twins have for a defence


@dataclass(frozen=True)
class Ablation:
    """One point of a study that changes one thing.

    Attributes:
        factor: what is changed.
        value: to what.
        repair: what repairs.
        ratio: poison ratio of the suspect; the preset's if ``None``.
        clean: number of the defender's samples; the preset's if ``None``.
    """

    factor: str
    value: Any
    repair: Repair
    ratio: float | None = None
    clean: int | None = None


@dataclass(frozen=True)
class GridPreset:
    """What a benchmark runs.

    Attributes:
        suspects: data, model, recipe and attacks; one entry per data set and model.
        repairs: the lines of the table.
        clean: number of the defender's samples.
        batch_size: of a defence, at most.
        held_out: share of the samples that a defence may use for its choices.
        against_adaptive: labels of the repairs that are run on adaptive attacks; all if ``None``.
        augment: give a defence batches that are augmented as is usual for the data set.
        seeds: number of seeds.
        ablations: points of studies, run on the first entry of ``suspects``.
        ablated: the attacks they are run on.
        relearning: the attacks of the relearning test.
        ks: numbers of poisoned samples in it.
        relearn: how models are fine-tuned in it.

    Raises:
        ValueError: two repairs with one label; more samples than are kept aside.
    """

    suspects: tuple[Preset, ...]
    repairs: tuple[Repair, ...]
    clean: int
    batch_size: int
    held_out: float = 0.2
    augment: bool = False
    against_adaptive: tuple[str, ...] | None = None
    seeds: int = 3
    ablations: tuple[Ablation, ...] = ()
    ablated: Attacks = (("badnets", None), ("blended", None))
    relearning: Attacks = ()
    ks: tuple[int, ...] = KS
    relearn: RelearnConfig = field(default_factory=RelearnConfig)

    def __post_init__(self) -> None:
        labels = [repair.label for repair in self.repairs]
        if len(set(labels)) < len(labels):
            raise ValueError(f"labels of repairs must differ, got {labels}")
        most = max([self.clean, *(point.clean or 0 for point in self.ablations)])
        for suspects in self.suspects:
            spare = suspects.twin.clean - self.clean
            if most > suspects.twin.clean or (self.relearning and spare <= max(self.ks)):
                raise ValueError(
                    f"{suspects.twin.clean} images kept aside are too few for {most} samples"
                    + (f" and {max(self.ks)} of the relearning test" if self.relearning else "")
                )

    def repair_job(self, suspect: AttackJob, repair: Repair, clean: int | None = None) -> RepairJob:
        """The job of one defence on one suspect."""
        asked = self.augment if repair.augment is None else repair.augment
        augment = AUGMENTATIONS.get(suspect.spec.data) if asked else None
        return RepairJob(
            suspect,
            repair.name,
            repair.all_options(suspect.spec.seed),
            clean=clean or self.clean,
            batch_size=self.batch_size,
            held_out=self.held_out,
            augment=augment,
        )


@dataclass(frozen=True)
class Planned:
    """A job, and what the table says of it.

    Attributes:
        job: what is run.
        suspect: what it hangs on; decides which part of a split run it belongs to.
        marks: of its row: kind, defence, ablation.
    """

    job: Job
    suspect: AttackJob
    marks: Mapping[str, Any]

    def row(self, row: Row) -> Row:
        """The row of the table from the job's."""
        if isinstance(self.job, AttackJob):
            row = suspect_row(self.job, row)
        elif isinstance(self.job, CleanJob):
            spec = self.job.spec
            shared = {"data": spec.data, "model": spec.model, "ratio": None, "clean": None}
            row = {**row, **shared, "refused": None}
        return {**self.marks, **row}


@dataclass(frozen=True)
class Plan:
    """All jobs of a benchmark, each list once and in order; a later one needs the earlier."""

    twins: tuple[Planned, ...]
    suspects: tuple[Planned, ...]
    repairs: tuple[Planned, ...]
    relearning: tuple[Planned, ...]

    @property
    def all(self) -> tuple[Planned, ...]:
        """One after the other."""
        return self.twins + self.suspects + self.repairs + self.relearning

    def part(self, number: int, of: int) -> "Plan":
        """What hangs on every ``of``-th suspect, from the ``number``-th on, counted from 1."""
        names = list(dict.fromkeys(key_of(planned.suspect) for planned in self.suspects))
        own = set(names[number - 1 :: of])
        twins = {key_of(twin_of(p.suspect.spec)) for p in self.suspects if key_of(p.suspect) in own}
        chosen = [
            tuple(planned for planned in planneds if key_of(planned.suspect) in own)
            for planneds in (self.suspects, self.repairs, self.relearning)
        ]
        return Plan(tuple(t for t in self.twins if key_of(t.job) in twins), *chosen)


def _marks(kind: str, defense: str, point: Ablation | None = None) -> dict[str, Any]:
    ablation = {"factor": point.factor, "value": point.value} if point else None
    return {"kind": kind, "defense": defense, "ablation": ablation}


def plan(preset: GridPreset, seeds: Sequence[int]) -> Plan:
    """All jobs of a preset: attack by attack, seed by seed."""
    suspects, repairs, relearning = [], [], []
    for group in preset.suspects:
        for (attack, adaptive), seed in product(group.attacks, seeds):
            suspect = AttackJob(group.spec(seed, attack, adaptive))
            suspects.append(Planned(suspect, suspect, _marks("suspect", NONE)))
            own = [
                Planned(preset.repair_job(suspect, repair), suspect, _marks("repair", repair.label))
                for repair in preset.repairs
                if adaptive is None
                or preset.against_adaptive is None
                or repair.label in preset.against_adaptive
            ]
            repairs += own
            if (attack, adaptive) in preset.relearning:
                relearning += _relearning(preset, suspect, own)
    for point, (attack, adaptive), seed in product(preset.ablations, preset.ablated, seeds):
        spec = preset.suspects[0].spec(seed, attack, adaptive)
        suspect = AttackJob(spec if point.ratio is None else replace(spec, ratio=point.ratio))
        if point.ratio is not None:
            suspects.append(Planned(suspect, suspect, _marks("suspect", NONE, point)))
        job = preset.repair_job(suspect, point.repair, point.clean)
        repairs.append(Planned(job, suspect, _marks("repair", point.repair.label, point)))
    twins = [
        Planned(twin_of(planned.suspect.spec), planned.suspect, _marks("clean", CLEAN))
        for planned in suspects
    ]
    return Plan(_once(twins), _once(suspects), _once(repairs), _once(relearning))


def _relearning(
    preset: GridPreset, suspect: AttackJob, repairs: Iterable[Planned]
) -> list[Planned]:
    subjects: list[tuple[Any, str]] = [(twin_of(suspect.spec), CLEAN), (suspect, NONE)]
    subjects += [(planned.job, planned.marks["defense"]) for planned in repairs]
    return [
        Planned(
            RelearningJob(subject, suspect, preset.clean, preset.ks, config=preset.relearn),
            suspect,
            _marks("relearning", label),
        )
        for subject, label in subjects
    ]


def _once(planned: Iterable[Planned]) -> tuple[Planned, ...]:
    """Without repetitions; one job may still stand in several lines of the table."""
    return tuple({(key_of(p.job), str(p.marks)): p for p in planned}.values())


def chosen_repairs(preset: GridPreset, labels: Iterable[str]) -> GridPreset:
    """A preset with some of its repairs, in the order given; its ablations stay.

    Raises:
        ValueError: an unknown label.
    """
    known = {repair.label: repair for repair in preset.repairs}
    wanted = list(dict.fromkeys(labels))
    for label in wanted:
        check_choice("defence", label, known)
    return replace(preset, repairs=tuple(known[label] for label in wanted))


def changed_suspects(
    preset: GridPreset,
    *,
    attacks: Attacks | None = None,
    data: str | None = None,
    model: str | None = None,
) -> GridPreset:
    """A preset on other attacks, another data set or another model.

    Args:
        preset: what is changed.
        attacks: run these alone; ablations and the relearning test keep theirs among them.
        data: one data set for all suspects, with the augmentation that is usual for it where the
            preset augments.
        model: one model in place of all.
    """
    changed = [_changed(group, attacks, data, model) for group in preset.suspects]
    preset = replace(preset, suspects=tuple(dict.fromkeys(changed)))
    if attacks is None:
        return preset
    return replace(
        preset,
        ablated=tuple(attack for attack in preset.ablated if attack in attacks),
        relearning=tuple(attack for attack in preset.relearning if attack in attacks),
    )


def _changed(group: Preset, attacks: Attacks | None, data: str | None, model: str | None) -> Preset:
    twin = replace(group.twin, data=data or group.twin.data, model=model or group.twin.model)
    if twin.training.augment is not None:
        training = replace(twin.training, augment=AUGMENTATIONS.get(twin.data))
        twin = replace(twin, training=training)
    return replace(group, twin=twin, attacks=attacks or group.attacks)
