# SPDX-License-Identifier: Apache-2.0
"""One job of the benchmark: a defence repairs a suspect model, then both are compared.

``repair_model`` calls the defence with the suspect's weights and the defender's clean samples:
neither test data nor a trigger reaches it. ACC, ASR and RA are measured afterwards, beside the
floor that the clean model set when the suspect was trained.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from d3fast.attacks import Attack, load_attack
from d3fast.benchmark.attack_jobs import AttackJob, why_no_suspect
from d3fast.benchmark.clean_shift import CleanShift
from d3fast.benchmark.defender import defender_samples, without_labels
from d3fast.benchmark.implant import TEST_BATCH, AttackSpec
from d3fast.data import Augment, Augmented, ImageData, Splits
from d3fast.defenses import D3, DEFENSES, Defense, DefenseResult, Pipeline
from d3fast.defenses.base import OnEpoch
from d3fast.detox import D3Config, save_weights
from d3fast.integrations.epoch_log import EpochLog, epoch_log
from d3fast.io.files import make_folder
from d3fast.models import load_weights
from d3fast.results.jobs import Row, RunDir, file_name, finished_row, key_of, settings_of
from d3fast.results.schema.benchmark import AttackRow, RateFields
from d3fast.results.schema.fields import read_record
from d3fast.runtime.checks import check_choice, check_integer, check_number
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.seeding import generator
from d3fast.training.metrics import COUNTS, Metrics, der, evaluate

Options = Mapping[str, Any]


def option_names(defense: str) -> frozenset[str]:
    """Return the names of a defence's options; those of ``D3Config`` for D3.

    Raises:
        ValueError: an unknown defence, or one of another package that is no dataclass.

    Example:
        >>> "epsilon" in option_names("d3"), "epochs" in option_names("fine-tuning")
        (True, True)
    """
    found = DEFENSES.find(defense)
    make: Any = D3Config if found is D3 else found
    if not dataclasses.is_dataclass(make):
        raise ValueError(f"defence {defense!r} must be a dataclass of options, see docs/plugins.md")
    return frozenset(f.name for f in dataclasses.fields(make) if f.init) - {"on_epoch"}


def _make_stage(name: str, options: Options) -> Defense:
    for option in options:
        check_choice(f"option of {name}", option, sorted(option_names(name)))
    make = DEFENSES.find(name)
    return D3(D3Config(**options)) if make is D3 else make(**_nested(make(), options))


def _nested(default: Any, options: Options) -> dict[str, Any]:
    """Return options with mappings as dataclasses; fields that a mapping lacks keep their value."""
    parts = {name: getattr(default, name) for name in options}
    return {
        name: dataclasses.replace(parts[name], **value)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(parts[name])
        else value
        for name, value in options.items()
    }


def _stage_options(name: str, options: Options, seed: int) -> dict[str, Any]:
    seeded = {"seed": seed, **options} if "seed" in option_names(name) else options
    stage: Any = _make_stage(name, seeded)
    values = dataclasses.asdict(stage.config if isinstance(stage, D3) else stage)
    return {key: value for key, value in values.items() if key in option_names(name)}


@dataclass(frozen=True)
class DefenseSpec:
    """A line of the table: a defence, or a pipeline of several, and their options.

    Args:
        name: of the registry; ``"fine-pruning+d3"`` runs the first and then the second.
        options: one mapping per stage, of the arguments of its constructor (D3: fields of
            ``D3Config``); stages without a mapping have their defaults.
        label: name of the line; ``name`` if empty.
        augment: pass augmented batches to the defence; the preset decides if ``None``.
        unlabelled: number of clean images without labels that its D3 stages learn from; ``None``
            for none.

    Raises:
        ValueError: an unknown defence or option; an invalid value; images without labels for
            another defence than D3.

    Example:
        >>> repair = DefenseSpec("fine-tuning+d3", ({"epochs": 5},), label="both")
        >>> first, second = repair.all_options(seed=3)
        >>> first["epochs"], second["epochs"], second["seed"]
        (5, 50, 3)
        >>> type(repair.build(seed=3)).__name__
        'Pipeline'
    """

    name: str
    options: tuple[Options, ...] = ()
    label: str = ""
    augment: bool | None = None
    unlabelled: int | None = None

    def __post_init__(self) -> None:
        if len(self.options) > len(self.name.split("+")):
            raise ValueError(
                f"options must be one mapping per stage of {self.name}, got {len(self.options)}"
            )
        if self.unlabelled is not None:
            check_integer("unlabelled", self.unlabelled, 1)
            if "d3" not in self.name.split("+"):
                raise ValueError(f"only d3 learns from images without labels, got {self.name!r}")
        object.__setattr__(self, "label", self.label or self.name)
        self.all_options(0)

    def all_options(self, seed: int) -> tuple[dict[str, Any], ...]:
        """Return every option of every stage, defaults and the seed included."""
        stages = self.name.split("+")
        given = [*self.options, *[{}] * (len(stages) - len(self.options))]
        pairs = zip(stages, given, strict=True)
        return tuple(_stage_options(stage, options, seed) for stage, options in pairs)

    def build(self, seed: int) -> Defense:
        """Return a new instance of the defence."""
        return make_defense(self.name, self.all_options(seed))


def make_defense(
    name: str,
    options: Iterable[Options],
    on_epoch: OnEpoch | None = None,
    unlabelled: Iterable[Any] | None = None,
) -> Defense:
    """Return a defence, or a pipeline written ``"a+b"``.

    Args:
        name: of the registry.
        options: of the stages.
        on_epoch: called after every epoch of every stage.
        unlabelled: batches without labels, for the stages that are D3.
    """
    stages: list[Any] = [
        _make_stage(stage, given) for stage, given in zip(name.split("+"), options, strict=True)
    ]
    if on_epoch is not None:
        stages = [dataclasses.replace(stage, on_epoch=on_epoch) for stage in stages]
    if unlabelled is not None:
        stages = [
            dataclasses.replace(stage, unlabelled=unlabelled) if isinstance(stage, D3) else stage
            for stage in stages
        ]
    return stages[0] if len(stages) == 1 else Pipeline(*stages)


def repair_model(
    defense: Defense,
    model: nn.Module,
    clean_train: ImageData,
    clean_val: ImageData | None,
    *,
    batch_size: int,
    augment: Augment | None,
    seed: int,
    device: torch.device,
    progress: bool,
) -> DefenseResult:
    """Let a defence repair a model; the defence sees nothing but these arguments.

    Args:
        defense: the defence.
        model: the suspect.
        clean_train: clean samples; every pass draws a new order.
        clean_val: held-out clean samples.
        batch_size: largest number of images per batch.
        augment: augmentation of every training batch.
        seed: draws order and augmentation.
        device: device of the repair.
        progress: show progress bars.

    Raises:
        ValueError: the defence raised it, for example for a model without batch norm.
    """
    loader: Iterable[Any] = clean_train.batches(batch_size, generator(seed, "repair order"))
    if augment is not None:
        loader = Augmented(loader, augment, generator(seed, "repair augmentation"))
    held_out = None if clean_val is None else clean_val.batches(TEST_BATCH)
    return defense(model, loader, held_out, device=device, progress=progress)


def load_suspect(job: AttackJob, splits: Splits, folder: Path) -> tuple[nn.Module, Attack]:
    """Return a suspect model and its trigger from the files of its job.

    Raises:
        ValueError, OSError: they are missing or damaged.
    """
    model = job.spec.initial_model(splits)
    load_weights(model, f"{job.stem(folder)}.safetensors")
    return model, load_trigger(job, folder)


def load_trigger(job: AttackJob, folder: Path) -> Attack:
    """Return the trigger of a suspect from the file of its job."""
    return load_attack(f"{job.stem(folder)}.trigger.safetensors", job.spec.attack)


def metrics_of(row: RateFields) -> Metrics:
    """Return the metrics whose counts a row holds."""
    return Metrics(**{name: getattr(row, name) for name in COUNTS})


@dataclass(frozen=True)
class RepairJob:
    """One defence on one suspect model.

    Attributes:
        suspect: the job that made the model; it has to be run before.
        defense: name of the defence, or of the pipeline.
        options: every option of every stage, defaults included: another default is another job.
        clean: number of the defender's samples.
        batch_size: images per batch, at most.
        held_out: share of the samples that is held out for choices inside the defence.
        augment: what is done to every training batch.
        shift: what is unusual about the samples, or ``None``.
        unlabelled: number of other clean images, without labels, for D3, or ``None``.

    Raises:
        ValueError: a number out of range.
    """

    suspect: AttackJob
    defense: str
    options: tuple[Options, ...]
    clean: int
    batch_size: int
    held_out: float = 0.2
    augment: Augment | None = None
    shift: CleanShift | None = None
    unlabelled: int | None = None
    kind: ClassVar[str] = "RepairCell"

    def __post_init__(self) -> None:
        check_integer("clean", self.clean, 1)
        check_integer("batch_size", self.batch_size, 1)
        check_number("held_out", self.held_out)
        if self.held_out >= 1:
            raise ValueError(f"held_out must be < 1, got {self.held_out}")

    @property
    def seed(self) -> int:
        """Seed of the suspect."""
        return self.suspect.spec.seed

    @property
    def name(self) -> str:
        """Name of the job, fit for a file name."""
        return file_name(f"{self.suspect.name}-{self.defense}")

    @property
    def plugins(self) -> Mapping[str, str]:
        """Package and version of the defences that are not built-in."""
        return DEFENSES.origins(*self.defense.split("+"))

    @property
    def needs(self) -> tuple[AttackJob, ...]:
        """The job of the suspect."""
        return (self.suspect,)

    def weights(self, folder: Path) -> Path:
        """Return the path of the repaired model; the file exists if the model was kept."""
        return folder / "models" / f"{key_of(self)}.safetensors"

    def suspect_row(self, folder: Path) -> AttackRow:
        """Return the row of the suspect's job.

        Raises:
            ValueError: the job has not been run.
        """
        row = finished_row(self.suspect, folder)
        if row is None:
            raise ValueError(f"{self.suspect.name} has to be run before {self.name}")
        return read_record(row, AttackRow, self.suspect.name)

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Repair and measure; the row holds the reason if the defence cannot repair the model."""
        before = self.suspect_row(run_dir.folder)
        spec = self.suspect.spec
        row = _setting(spec, before, self.options, self.clean)
        reason = why_no_suspect(before)
        if reason is not None:
            return {**row, "refused": f"no suspect: {reason}"}
        where = resolve_device(run_dir.device)
        splits = spec.splits(run_dir.data_dir).to(where)
        model, attack = load_suspect(self.suspect, splits, run_dir.folder)
        # On most devices convolutions are faster in this memory format.
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        try:
            with self._log(run_dir) as log:
                result = self.repair(model.to(where), splits.clean, where, progress, log)
        except ValueError as error:
            return {**row, "refused": str(error)}
        if key_of(self) in run_dir.keep:
            make_folder(run_dir.folder / "models")
            save_weights(result.model, self.weights(run_dir.folder))
        after = evaluate(result.model, splits.test.batches(TEST_BATCH), attack)
        found = compared(metrics_of(before), after, before.floor)
        return {**row, **found, **_course(result), "refused": None}

    def _log(self, run_dir: RunDir) -> AbstractContextManager[EpochLog | None]:
        folder = run_dir.folder / "log" / key_of(self)
        return epoch_log(run_dir.log, folder, key_of(self), settings_of(self))

    def repair(
        self,
        model: nn.Module,
        clean: ImageData,
        device: torch.device,
        progress: bool,
        on_epoch: OnEpoch | None = None,
    ) -> DefenseResult:
        """Draw the defender's samples and repair the model with them; see ``repair_model``."""
        train, held_out, others = defender_samples(clean, self.clean, self.held_out, self.seed)
        more = None
        if self.unlabelled is not None:
            more = without_labels(others, self.unlabelled, self.batch_size, self.augment, self.seed)
        if self.shift is not None:
            train = self.shift.apply(train, self.seed)
            held_out = None if held_out is None else self.shift.apply(held_out, self.seed + 1)
        return repair_model(
            make_defense(self.defense, self.options, on_epoch, more),
            model,
            train,
            held_out,
            batch_size=self.batch_size,
            augment=self.augment,
            seed=self.seed,
            device=device,
            progress=progress,
        )


def compared(suspect: Metrics, after: Metrics, floor: float | None) -> Row:
    """Return rates and counts of a model, compared with the suspect and the clean model.

    Args:
        suspect: the suspect.
        after: the model; the suspect itself, or a repair of it.
        floor: ASR of the clean model; ``None`` if there is no clean model.
    """
    asr = after.asr
    return {
        **after.as_dict(),
        "asr_excess": None if asr is None or floor is None else asr - floor,
        "acc_loss": suspect.acc - after.acc,
        "der": der(suspect, after),
    }


def suspect_row(job: AttackJob, row: AttackRow) -> Row:
    """Return the row of a suspect with the fields of a repaired model's row."""
    setting = _setting(job.spec, row, row.options, None)
    reason = why_no_suspect(row)
    if reason is not None:
        return {**setting, "refused": reason}
    found = metrics_of(row)
    training = {"seconds": row.seconds, "epochs": job.spec.training.epochs, "val_accuracy": None}
    return {**setting, **compared(found, found, row.floor), **training, "refused": None}


def _setting(spec: AttackSpec, row: AttackRow, options: Any, clean: int | None) -> Row:
    """Return the fields that the rows of suspects and of repaired models begin with."""
    names = ("seed", "data", "model", "attack", "adaptive", "ratio")
    setting: Row = {name: getattr(spec, name) for name in names}
    beside = {"floor": row.floor, "ra_ceiling": row.ra_ceiling}
    return {**setting, "options": options, "clean": clean, **beside}


def _course(result: DefenseResult) -> Row:
    history = result.history
    return {
        "seconds": result.seconds,
        "epochs": len(history),
        "val_accuracy": history[-1].val_accuracy if history else None,
        "chosen": dict(result.chosen) or None,
    }
