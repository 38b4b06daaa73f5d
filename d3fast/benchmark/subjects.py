# SPDX-License-Identifier: Apache-2.0
"""The models that the tests with a known trigger take: repaired, backdoored, never poisoned.

Such a test (relearning, re-activation) is a job on the files of two others: the job that made the
model, its subject, and the job that made the trigger.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from d3fast.attacks import Attack
from d3fast.benchmark.attack_jobs import AttackJob, CleanJob, why_no_suspect
from d3fast.benchmark.defender import defender_samples
from d3fast.benchmark.repair_jobs import (
    RepairJob,
    load_suspect,
    load_trigger,
)
from d3fast.data import ImageData, Splits, stratified_split
from d3fast.models import load_weights
from d3fast.results.jobs import Row, RunDir, finished_row
from d3fast.results.schema.benchmark import AttackRow
from d3fast.results.schema.fields import read_record
from d3fast.runtime.seeding import generator

Subject = RepairJob | AttackJob | CleanJob


def subject_name(subject: Subject) -> str:
    """Return what made the model, fit for a file name."""
    if isinstance(subject, RepairJob):
        return subject.defense
    return "clean" if isinstance(subject, CleanJob) else "suspect"


def position(suspect: AttackJob, clean: int) -> Row:
    """Return the fields that say where in the grid a test of this suspect's trigger stands."""
    spec = suspect.spec
    return {
        "seed": spec.seed,
        "data": spec.data,
        "model": spec.model,
        "attack": spec.attack,
        "adaptive": spec.adaptive,
        "ratio": spec.ratio,
        "clean": clean,
    }


def why_missing(subject: Subject, suspect: AttackJob, name: str, folder: Path) -> str | None:
    """Return the reason why there is no model or no trigger, or ``None``.

    Raises:
        ValueError: one of the two jobs was not run; ``name`` is that of the test.
    """
    for job in (suspect, subject):
        row = finished_row(job, folder)
        if row is None:
            raise ValueError(f"{job.name} has to be run before {name}")
        if isinstance(job, AttackJob):
            reason = why_no_suspect(read_record(row, AttackRow, job.name))
        else:
            reason = row.get("refused")
        if reason:
            return str(reason)
    return None


@dataclass(frozen=True)
class Samples:
    """The images of a test.

    Attributes:
        attacker: clean images that the defender did not get.
        test: test images for ACC and ASR, stratified by class.
    """

    attacker: ImageData
    test: ImageData


def samples_of_test(splits: Splits, clean: int, count: int, seed: int) -> Samples:
    """Return the images of a test.

    Args:
        splits: of the data set.
        clean: number of the defender's samples.
        count: largest number of test images.
        seed: draws both.
    """
    _, _, others = defender_samples(splits.clean, clean, 0.0, seed)
    draws = generator(seed, "relearning test images")
    (shown,) = stratified_split(splits.test.labels, [min(count, len(splits.test))], draws)
    return Samples(others, splits.test.subset(shown))


def load_clean_model(job: CleanJob, splits: Splits, folder: Path) -> nn.Module:
    """Return a clean model from the file of its job."""
    model = job.spec.initial_model(splits)
    load_weights(model, job.weights(folder))
    return model


def load_subject(
    subject: Subject,
    suspect: AttackJob,
    splits: Splits,
    run_dir: RunDir,
    device: torch.device,
    progress: bool,
) -> tuple[nn.Module, Attack]:
    """Return the model of a job, and the trigger of the suspect."""
    if isinstance(subject, AttackJob):
        return load_suspect(subject, splits, run_dir.folder)
    if isinstance(subject, CleanJob):
        model = load_clean_model(subject, splits, run_dir.folder)
        return model, load_trigger(suspect, run_dir.folder)
    model, attack = load_suspect(subject.suspect, splits, run_dir.folder)
    kept = subject.weights(run_dir.folder)
    if kept.is_file():
        load_weights(model, kept)
        return model, attack
    # The job did not keep its model; the same repair computes it again.
    return subject.repair(model.to(device), splits.clean, device, progress).model, attack
