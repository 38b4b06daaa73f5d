# SPDX-License-Identifier: Apache-2.0
"""Train clean models of one architecture and keep the scores of every detector.

Each model sees its own part of the samples, drawn by its seed, and is inspected with others. It
starts from random weights: a suspect that was fine-tuned from a pretrained model, or trained on far
more samples, may have other scores although it is clean.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from d3fast.attacks import ATTACKS, TrainConfig
from d3fast.attacks.recipes import COLOUR
from d3fast.audit.architecture import architecture_digest
from d3fast.audit.calibration import classes_digest, options_text
from d3fast.audit.calibration_jobs import CalibrationInput, ScoreJob, TrainJob
from d3fast.audit.detectors.registry import DETECTORS, WEIGHT_DETECTORS
from d3fast.audit.inspect import InspectOptions
from d3fast.audit.resolve import Audit, images_of
from d3fast.data import ImageData, fingerprint
from d3fast.hub import Suspect
from d3fast.hub.suspect import ImageInput
from d3fast.models import make_model
from d3fast.results.engine import run_jobs
from d3fast.results.jobs import Row
from d3fast.results.pool import local_engine
from d3fast.results.schema.calibration import CalibrationRow, DetectorScore, ScoredModelRow
from d3fast.runtime.checks import check_choice, check_integer

FIRST_SEED = 1000  # benchmarks use lower seeds
_BACKDOORED = 10_000  # added to the seeds of backdoored models, whatever the number of clean ones
_TRAINED = 0.75
_STEPS = 20  # an epoch, at least


@dataclass(frozen=True)
class CalibrationOptions:
    """Options of a calibration.

    Args:
        models: number of clean models; n of them resolve a false-alarm rate of 1 / (n + 1).
        backdoored: number of backdoored models, to measure the detection rate.
        attacks: of the backdoored models, in turn.
        recipes: data set whose options of the attacks are taken.
        train: number of samples to train on; three quarters if ``None``. The others are inspected.
        epochs: passes over them.
        training: the recipe; ``cheap_training`` if ``None``.
        inspection: options of the inspections; its rate is not used.
        first_seed: seed of the first model; the others follow.

    Raises:
        ValueError: a number out of range; an unknown attack.
    """

    models: int = 40
    backdoored: int = 0
    attacks: tuple[str, ...] = ("badnets", "blended")
    recipes: str = COLOUR
    train: int | None = None
    epochs: int = 20
    training: TrainConfig | None = None
    inspection: InspectOptions = field(default_factory=InspectOptions)
    first_seed: int = FIRST_SEED

    def __post_init__(self) -> None:
        check_integer("models", self.models, 1)
        check_integer("backdoored", self.backdoored, 0)
        check_integer("epochs", self.epochs, 1)
        check_integer("first_seed", self.first_seed, 0)
        if self.train is not None:
            check_integer("train", self.train, 1)
        for attack in self.attacks:
            check_choice("attacks", attack, ATTACKS)


def cheap_training(samples: int, epochs: int) -> TrainConfig:
    """Return the recipe of a calibration: SGD, 20 or more steps an epoch.

    Args:
        samples: number of samples to train on.
        epochs: passes over them.

    Example:
        >>> cheap_training(750, 20).batch_size, cheap_training(50_000, 20).batch_size
        (37, 128)
    """
    return TrainConfig(epochs=epochs, batch_size=min(128, max(8, samples // _STEPS)))


def training_jobs(given: CalibrationInput, options: CalibrationOptions) -> list[TrainJob]:
    """Return the jobs that train the models, clean ones first."""
    train = _train_size(given.data, options)
    clean = TrainJob(
        options.first_seed,
        architecture_digest(given.model),
        fingerprint(given.data),
        train,
        cheap_training(train, options.epochs) if options.training is None else options.training,
    )
    jobs = [replace(clean, seed=options.first_seed + i) for i in range(options.models)]
    for i in range(options.backdoored):
        attack = options.attacks[i % len(options.attacks)]
        target = (i // len(options.attacks)) % len(given.data.classes)
        seed = options.first_seed + _BACKDOORED + i
        jobs.append(
            replace(clean, seed=seed, attack=attack, recipes=options.recipes, target=target)
        )
    return jobs


def score_jobs(models: Sequence[TrainJob], options: InspectOptions) -> list[ScoreJob]:
    """Return the jobs that score the models, those of one model side by side."""
    detectors = dict.fromkeys((*options.for_images(), *WEIGHT_DETECTORS))
    return [
        ScoreJob(model, name, options.inversion, options.samples, options.classes)
        for model in models
        for name in detectors
    ]


def run_calibration(
    given: CalibrationInput,
    options: CalibrationOptions,
    *,
    name: str,
    data: str,
    devices: Sequence[str] = ("cpu",),
    progress: bool = True,
) -> tuple[Row, ...]:
    """Run the jobs that are not finished and return the rows of a calibration's file.

    Args:
        given: the architecture, the samples and the run directory, which keeps finished jobs.
        options: how many models, and how they are trained and inspected.
        name: how a command line names the architecture.
        data: name of the samples.
        devices: one worker each, with one thread on a CPU.
        progress: show a progress bar.

    Raises:
        ValueError: fewer than two classes; samples that leave none to inspect; what the training
            and the inspection raise.
        OSError: a worker was ended from outside.
    """
    _check(given.data, options)
    models = training_jobs(given, options)
    scores = score_jobs(models, options.inspection)
    with local_engine(given, devices) as engine:
        run = partial(run_jobs, engine=engine, folder=given.folder, progress=progress)
        trained = run(models, title="training")
        scored = run(scores, title="detectors")
    found: dict[TrainJob, list[DetectorScore]] = {}
    for job, row in zip(scores, scored, strict=True):
        score = DetectorScore(name=_short_name(job.detector), **row)
        found.setdefault(job.model, []).append(score)
    about = CalibrationRow(
        model=name,
        architecture=models[0].architecture,
        data=data,
        samples_sha256=models[0].samples,
        shape=given.data.shape,
        classes=len(given.data.classes),
        train=models[0].train,
        epochs=models[0].training.epochs,
        inspected=min(len(given.data) - models[0].train, options.inspection.samples),
        options=options_text(options.inspection.inversion, options.inspection.classes),
        classes_sha256=classes_digest(given.data.classes),
    )
    rows = [
        ScoredModelRow(attack=job.attack, target=job.target, scores=tuple(found[job]), **row)
        for job, row in zip(models, trained, strict=True)
    ]
    return tuple(row.to_row() for row in (about, *rows))


def _short_name(detector: str) -> str:
    """Return the name that results have: that of a plugin may be ``package.module:Name``."""
    return detector if detector in WEIGHT_DETECTORS else DETECTORS.find(detector)().name


def _check(data: ImageData, options: CalibrationOptions) -> None:
    if len(data.classes) < 2:
        raise ValueError(f"detectors compare classes, the samples have {len(data.classes)}")
    train = _train_size(data, options)
    if not 0 < train < len(data):
        raise ValueError(f"train must leave some of {len(data)} samples to inspect, got {train}")


def _train_size(data: ImageData, options: CalibrationOptions) -> int:
    return round(_TRAINED * len(data)) if options.train is None else options.train


def calibration_input(audit: Audit, folder: Path) -> CalibrationInput:
    """Return what a calibration of an audit's architecture needs.

    Args:
        audit: the model, whose weights are not used, and labelled samples.
        folder: run directory.

    Raises:
        ValueError: texts; samples without labels.
    """
    data, suspect = images_of(audit.data), audit.suspect
    if not audit.labelled:
        raise ValueError("a calibration trains models: it needs samples with labels")
    image = suspect.input
    assert isinstance(image, ImageInput)
    return CalibrationInput(
        model=suspect.model,
        data=data,
        folder=folder,
        factory=suspect.spec if _builds(suspect, data) else None,
        mean=image.mean,
        std=image.std,
    )


def _builds(suspect: Suspect, data: ImageData) -> bool:
    """Return whether the name of a model is that of a factory, which knows its initial weights."""
    try:
        built = make_model(suspect.spec, len(data.classes), data.shape[0])
    except ValueError:
        return False
    return architecture_digest(built) == architecture_digest(suspect.model)
