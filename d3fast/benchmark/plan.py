# SPDX-License-Identifier: Apache-2.0
"""The jobs of a benchmark of attacks x defences x seeds.

``plan_jobs`` turns a ``BenchmarkPreset`` into jobs: clean models, suspects, repairs, and for some
models the relearning and the re-activation test.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from d3fast.benchmark.attack_jobs import AttackJob, AttackPreset, CleanJob
from d3fast.benchmark.clean_shift import CleanShift
from d3fast.benchmark.labels import CLEAN_MODEL, NONE
from d3fast.benchmark.reactivation import ReactivationConfig
from d3fast.benchmark.reactivation_jobs import ReactivationJob
from d3fast.benchmark.relearning import KS, RelearnConfig
from d3fast.benchmark.relearning_jobs import RelearningJob
from d3fast.benchmark.repair_jobs import DefenseSpec, RepairJob, suspect_row
from d3fast.data import AUGMENTATIONS
from d3fast.defenses import DEFENSES
from d3fast.results.jobs import Job, Row, key_of
from d3fast.results.schema.benchmark import GridRow, read_attacks, read_grid
from d3fast.runtime.checks import check_choice
from d3fast.runtime.plugins import is_spec

Attacks = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Ablation:
    """One point of a study that changes one thing.

    Attributes:
        factor: name of the changed option.
        value: its value.
        defense: the defence.
        ratio: poison ratio of the suspect; the preset's if ``None``.
        clean: number of the defender's samples; the preset's if ``None``.
        shift: what is unusual about them; the preset's if ``None``.
    """

    factor: str
    value: Any
    defense: DefenseSpec
    ratio: float | None = None
    clean: int | None = None
    shift: CleanShift | None = None


@dataclass(frozen=True)
class BenchmarkPreset:
    """The choices of a benchmark.

    Attributes:
        suspects: data, model, recipe and attacks; one entry per data set and model.
        defenses: the lines of the table.
        clean: number of the defender's samples.
        batch_size: largest batch of a defence.
        held_out: share of the samples that a defence may use for its choices.
        against_adaptive: labels of the defences that are run on adaptive attacks; all if ``None``.
        augment: augment the batches of the defences as is usual for the data set.
        seeds: number of seeds.
        ablations: points of studies, run on the first entry of ``suspects``.
        ablated: attacks of the ablations.
        relearning: attacks of the relearning test.
        ks: numbers of poisoned samples in the relearning test.
        relearn: fine-tuning of the relearning test.
        reactivation: attacks of the re-activation test.
        reactivate: search of the re-activation test.
        shift: what is unusual about the samples of every defender, or ``None``.

    Raises:
        ValueError: two defences with one label; more samples than are kept aside.
    """

    suspects: tuple[AttackPreset, ...]
    defenses: tuple[DefenseSpec, ...]
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
    reactivation: Attacks = ()
    reactivate: ReactivationConfig = field(default_factory=ReactivationConfig)
    shift: CleanShift | None = None

    def __post_init__(self) -> None:
        labels = [defense.label for defense in self.defenses]
        if len(set(labels)) < len(labels):
            raise ValueError(f"labels of defences must differ, got {labels}")
        most = max([self.clean, *(point.clean or 0 for point in self.ablations)])
        pool = max((defense.unlabelled or 0 for defense in self.defenses), default=0)
        for suspects in self.suspects:
            aside, spare = suspects.base.clean, suspects.base.clean - self.clean
            needs = [f"{most} samples"] if most > aside else []
            if not needs and pool > spare:
                needs = [f"{self.clean} samples and {pool} without labels"]
            # One image more than the relearning test poisons, for its clean batches.
            if self.relearning and spare <= max(self.ks):
                needs = [f"{most} samples and {max(self.ks)} of the relearning test"]
            elif self.reactivation and spare < 1:
                needs = [f"{most} samples and 1 of the re-activation test"]
            if needs:
                raise ValueError(f"{aside} images kept aside are too few for {needs[0]}")

    def repair_job(
        self,
        suspect: AttackJob,
        defense: DefenseSpec,
        clean: int | None = None,
        shift: CleanShift | None = None,
    ) -> RepairJob:
        """Return the job of one defence on one suspect."""
        augmented = self.augment if defense.augment is None else defense.augment
        return RepairJob(
            suspect,
            defense.name,
            defense.all_options(suspect.spec.seed),
            clean=clean or self.clean,
            batch_size=self.batch_size,
            held_out=self.held_out,
            augment=AUGMENTATIONS.get(suspect.spec.data) if augmented else None,
            shift=shift or self.shift,
            unlabelled=defense.unlabelled,
        )


@dataclass(frozen=True)
class PlannedJob:
    """A job and the labels of its row.

    Attributes:
        job: the job.
        suspect: the suspect that the job depends on; a split run divides the jobs by suspects.
        labels: kind, defence and ablation.
    """

    job: Job
    suspect: AttackJob
    labels: Mapping[str, Any]

    def row(self, row: Row) -> GridRow:
        """Return the row of the table from the JSON of the job's row."""
        if isinstance(self.job, AttackJob):
            row = suspect_row(self.job, *read_attacks([row]))
        elif isinstance(self.job, CleanJob):
            spec = self.job.spec
            shared = {"data": spec.data, "model": spec.model, "ratio": None, "clean": None}
            row = {**row, **shared, "refused": None}
        (made,) = read_grid([{**self.labels, **row}])
        return made


@dataclass(frozen=True)
class BenchmarkPlan:
    """All jobs of a benchmark in their order; later fields depend on earlier ones."""

    clean_models: tuple[PlannedJob, ...]
    suspects: tuple[PlannedJob, ...]
    repairs: tuple[PlannedJob, ...]
    relearning: tuple[PlannedJob, ...]
    reactivation: tuple[PlannedJob, ...]

    @property
    def all(self) -> tuple[PlannedJob, ...]:
        """The jobs of all fields."""
        return self.clean_models + self.suspects + self.repairs + self.tests

    @property
    def tests(self) -> tuple[PlannedJob, ...]:
        """The jobs that test the models of other jobs."""
        return self.relearning + self.reactivation

    def part(self, number: int, of: int) -> "BenchmarkPlan":
        """Return part ``number`` of ``of``, counted from 1: some suspects and what needs them.

        Suspects with one clean model stay in one part, so that it is trained once, unless there
        are more parts than clean models.
        """
        twins: dict[str, dict[str, None]] = {}
        for suspect in (planned.suspect for planned in self.suspects):
            twins.setdefault(key_of(suspect.clean_job), {})[key_of(suspect)] = None
        names = [list(group) for group in twins.values()]
        if len(names) < of:
            names = [[name] for group in names for name in group]
        own = {name for group in names[number - 1 :: of] for name in group}
        clean = {
            key_of(planned.suspect.clean_job)
            for planned in self.suspects
            if key_of(planned.suspect) in own
        }
        chosen = [
            tuple(planned for planned in jobs if key_of(planned.suspect) in own)
            for jobs in (self.suspects, self.repairs, self.relearning, self.reactivation)
        ]
        return BenchmarkPlan(
            tuple(planned for planned in self.clean_models if key_of(planned.job) in clean), *chosen
        )


def _labels(kind: str, defense: str, point: Ablation | None = None) -> dict[str, Any]:
    ablation = {"factor": point.factor, "value": point.value} if point else None
    return {"kind": kind, "defense": defense, "ablation": ablation}


def plan_jobs(preset: BenchmarkPreset, seeds: Sequence[int]) -> BenchmarkPlan:
    """Return all jobs of a preset: attack by attack, seed by seed."""
    suspects, repairs, relearning, reactivation = [], [], [], []
    for group in preset.suspects:
        for (attack, adaptive), seed in product(group.attacks, seeds):
            suspect = AttackJob(group.spec(seed, attack, adaptive))
            suspects.append(PlannedJob(suspect, suspect, _labels("suspect", NONE)))
            own = [
                PlannedJob(
                    preset.repair_job(suspect, defense), suspect, _labels("repair", defense.label)
                )
                for defense in preset.defenses
                if adaptive is None
                or preset.against_adaptive is None
                or defense.label in preset.against_adaptive
            ]
            repairs += own
            if not group.base.ratio:  # no backdoor to learn again
                continue
            if (attack, adaptive) in preset.relearning:
                relearning += _relearning(preset, suspect, own)
            if (attack, adaptive) in preset.reactivation:
                reactivation += _reactivation(preset, suspect, own)
    for point, (attack, adaptive), seed in product(preset.ablations, preset.ablated, seeds):
        spec = preset.suspects[0].spec(seed, attack, adaptive)
        suspect = AttackJob(spec if point.ratio is None else replace(spec, ratio=point.ratio))
        if point.ratio is not None:
            suspects.append(PlannedJob(suspect, suspect, _labels("suspect", NONE, point)))
        job = preset.repair_job(suspect, point.defense, point.clean, point.shift)
        repairs.append(PlannedJob(job, suspect, _labels("repair", point.defense.label, point)))
    clean_models = [
        PlannedJob(planned.suspect.clean_job, planned.suspect, _labels("clean", CLEAN_MODEL))
        for planned in suspects
    ]
    return BenchmarkPlan(*map(_once, (clean_models, suspects, repairs, relearning, reactivation)))


def _subjects(
    suspect: AttackJob, repairs: Iterable[PlannedJob]
) -> list[tuple[AttackJob | CleanJob | RepairJob, str]]:
    """Return the models that take the tests with a suspect's trigger, and their labels."""
    subjects: list[tuple[Any, str]] = [(suspect.clean_job, CLEAN_MODEL), (suspect, NONE)]
    return subjects + [(planned.job, planned.labels["defense"]) for planned in repairs]


def _relearning(
    preset: BenchmarkPreset, suspect: AttackJob, repairs: Iterable[PlannedJob]
) -> list[PlannedJob]:
    return [
        PlannedJob(
            RelearningJob(subject, suspect, preset.clean, preset.ks, config=preset.relearn),
            suspect,
            _labels("relearning", label),
        )
        for subject, label in _subjects(suspect, repairs)
    ]


def _reactivation(
    preset: BenchmarkPreset, suspect: AttackJob, repairs: Iterable[PlannedJob]
) -> list[PlannedJob]:
    return [
        PlannedJob(
            ReactivationJob(subject, suspect, preset.clean, config=preset.reactivate),
            suspect,
            _labels("reactivation", label),
        )
        for subject, label in _subjects(suspect, repairs)
    ]


def _once(planned: Iterable[PlannedJob]) -> tuple[PlannedJob, ...]:
    """Return the jobs without repetitions; one job may have rows with different labels."""
    return tuple({(key_of(p.job), str(p.labels)): p for p in planned}.values())


def select_defenses(preset: BenchmarkPreset, labels: Iterable[str]) -> BenchmarkPreset:
    """Return a preset with some defences on all its attacks, in the order given; ablations stay.

    Args:
        preset: the preset.
        labels: of its defences; or other names of ``DEFENSES`` and ``package.module:Name``, which
            run with their default options.

    Raises:
        ValueError: a label that is neither; a defence that cannot be imported.
    """
    known = {defense.label: defense for defense in preset.defenses}
    chosen = []
    for label in dict.fromkeys(labels):
        if not all(stage in DEFENSES or is_spec(stage) for stage in label.split("+")):
            check_choice("defence", label, dict.fromkeys([*known, *DEFENSES]))
        chosen.append(known.get(label) or DefenseSpec(label))
    return replace(preset, defenses=tuple(chosen), against_adaptive=None)


def replace_suspects(
    preset: BenchmarkPreset,
    *,
    attacks: Attacks | None = None,
    data: str | None = None,
    model: str | None = None,
) -> BenchmarkPreset:
    """Return a preset with other attacks, another data set or another model.

    Args:
        preset: the preset.
        attacks: the only attacks; ablations, the tests of other models and models without poisoned
            samples, whose trigger need not be trained, keep those of theirs among them.
        data: one data set for all suspects; a preset that augments uses its augmentation.
        model: one model for all suspects.
    """
    changed = [_changed(group, attacks, data, model) for group in preset.suspects]
    suspects = tuple(group for group in dict.fromkeys(changed) if group.attacks)
    preset = replace(preset, suspects=suspects)
    if attacks is None:
        return preset
    return replace(
        preset,
        ablated=tuple(attack for attack in preset.ablated if attack in attacks),
        relearning=tuple(attack for attack in preset.relearning if attack in attacks),
        reactivation=tuple(attack for attack in preset.reactivation if attack in attacks),
    )


def _changed(
    group: AttackPreset, attacks: Attacks | None, data: str | None, model: str | None
) -> AttackPreset:
    base = replace(group.base, data=data or group.base.data, model=model or group.base.model)
    if base.training.augment is not None:
        training = replace(base.training, augment=AUGMENTATIONS.get(base.data))
        base = replace(base, training=training)
    if attacks is not None and base.ratio == 0:
        attacks = tuple(attack for attack in group.attacks if attack in attacks)
    return replace(group, base=base, attacks=group.attacks if attacks is None else attacks)
