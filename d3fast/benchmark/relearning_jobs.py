# SPDX-License-Identifier: Apache-2.0
"""One job of the relearning test: how fast a backdoor returns to a repaired model.

The suspect and the clean model take the same test; a repaired model lies between them.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from d3fast.attacks import Attack, load_attack
from d3fast.benchmark.attack_jobs import AttackJob, CleanJob
from d3fast.benchmark.relearning import KS, RelearnConfig, evaluate_relearning
from d3fast.benchmark.repair_jobs import RepairJob, defender_samples, load_suspect
from d3fast.data import Splits, stratified_split
from d3fast.models import load_weights
from d3fast.results.jobs import Row, RunDir, finished_row
from d3fast.runtime.checks import check_integer
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.seeding import generator


@dataclass(frozen=True)
class RelearningJob:
    """The relearning test of one model under one trigger.

    Attributes:
        subject: the job that made the model; it has to be run before.
        suspect: the job that made the trigger.
        clean: number of the defender's samples; the images to poison are not among them.
        ks: numbers of poisoned samples.
        test_images: largest number of test images for ACC and ASR.
        config: the fine-tuning.

    Raises:
        ValueError: a number out of range.
    """

    subject: RepairJob | AttackJob | CleanJob
    suspect: AttackJob
    clean: int
    ks: tuple[int, ...] = KS
    test_images: int = 2000
    config: RelearnConfig = field(default_factory=RelearnConfig)
    kind: ClassVar[str] = "RelearnCell"

    def __post_init__(self) -> None:
        check_integer("test_images", self.test_images, 1)

    @property
    def name(self) -> str:
        """Name of the job, fit for a file name."""
        what = "suspect"
        if isinstance(self.subject, RepairJob):
            what = self.subject.defense
        elif isinstance(self.subject, CleanJob):
            what = "clean"
        return f"{self.suspect.name}-relearning-{what}"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Fine-tune the model on few poisoned samples and measure the ASR."""
        spec = self.suspect.spec
        row: Row = {
            "seed": spec.seed,
            "data": spec.data,
            "model": spec.model,
            "attack": spec.attack,
            "adaptive": spec.adaptive,
            "ratio": spec.ratio,
            "clean": self.clean,
        }
        if (reason := self._missing(run_dir.folder)) is not None:
            return {**row, "refused": reason}
        where = resolve_device(run_dir.device)
        splits = spec.splits(run_dir.data_dir).to(where)
        model, attack = self._model(splits, run_dir, where, progress)
        _, _, others = defender_samples(splits.clean, self.clean, 0.0, spec.seed)
        count = min(self.test_images, len(splits.test))
        draws = generator(spec.seed, "relearning test images")
        (shown,) = stratified_split(splits.test.labels, [count], draws)
        result = evaluate_relearning(
            model.to(where),
            others,
            splits.test.subset(shown),
            attack,
            ks=self.ks,
            config=self.config,
            seed=spec.seed,
            device=where,
            progress=progress,
        )
        return {**row, **result.as_dict(), "refused": None}

    def _missing(self, folder: Path) -> str | None:
        """Return the reason why there is no model or no trigger, or ``None``."""
        for job in (self.suspect, self.subject):
            row = finished_row(job, folder)
            if row is None:
                raise ValueError(f"{job.name} has to be run before {self.name}")
            if row.get("refused"):
                return str(row["refused"])
        return None

    def _model(
        self, splits: Splits, run_dir: RunDir, device: torch.device, progress: bool
    ) -> tuple[nn.Module, Attack]:
        subject = self.subject
        if isinstance(subject, AttackJob):
            return load_suspect(subject, splits, run_dir.folder)
        if isinstance(subject, CleanJob):
            model = subject.spec.initial_model(splits)
            load_weights(model, subject.weights(run_dir.folder))
            stem = self.suspect.stem(run_dir.folder)
            return model, load_attack(f"{stem}.trigger.safetensors")
        model, attack = load_suspect(subject.suspect, splits, run_dir.folder)
        kept = subject.weights(run_dir.folder)
        if kept.is_file():
            load_weights(model, kept)
            return model, attack
        # The job did not keep its model; the same repair computes it again.
        return subject.repair(model.to(device), splits.clean, device, progress).model, attack
