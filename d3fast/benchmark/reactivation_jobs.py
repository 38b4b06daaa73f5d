# SPDX-License-Identifier: Apache-2.0
"""One job of the re-activation test: what a perturbed trigger opens in a repaired model.

The attacker's own model, for the transfer, is the suspect after plain fine-tuning on the images
that the defender did not get. The suspect and the clean model take the same test.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from d3fast.attacks import Attack
from d3fast.benchmark.attack_jobs import AttackJob
from d3fast.benchmark.existence import existence_coefficient
from d3fast.benchmark.reactivation import (
    ReactivationConfig,
    attackers_images,
    evaluate_reactivation,
)
from d3fast.benchmark.repair_jobs import load_suspect, repair_model
from d3fast.benchmark.subjects import (
    Samples,
    Subject,
    load_clean_model,
    load_subject,
    position,
    samples_of_test,
    subject_name,
    why_missing,
)
from d3fast.data import Splits
from d3fast.defenses import FineTuning
from d3fast.results.jobs import Row, RunDir
from d3fast.runtime.checks import check_integer
from d3fast.runtime.devices import resolve_device

_BATCH = 64  # of the attacker's fine-tuning


@dataclass(frozen=True)
class ReactivationJob:
    """The re-activation test of one model under one trigger.

    Attributes:
        subject: the job that made the model; it has to be run before.
        suspect: the job that made the trigger.
        clean: number of the defender's samples; the attacker's images are not among them.
        test_images: largest number of test images for ASR.
        surrogate_epochs: epochs of the attacker's fine-tuning.
        config: the search.

    Raises:
        ValueError: a number out of range.
    """

    subject: Subject
    suspect: AttackJob
    clean: int
    test_images: int = 2000
    surrogate_epochs: int = 5
    config: ReactivationConfig = field(default_factory=ReactivationConfig)
    kind: ClassVar[str] = "ReactivationJob"

    def __post_init__(self) -> None:
        for name in ("test_images", "surrogate_epochs"):
            check_integer(name, getattr(self, name), 1)

    @property
    def name(self) -> str:
        """Name of the job, fit for a file name."""
        return f"{self.suspect.name}-reactivation-{subject_name(self.subject)}"

    @property
    def needs(self) -> tuple[Subject, ...]:
        """The jobs of the trigger, of the model, and of the clean model."""
        return (self.suspect, self.subject, self.suspect.clean_job)

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Search for perturbations and measure the ASR under them."""
        spec, row = self.suspect.spec, position(self.suspect, self.clean)
        reason = why_missing(self.subject, self.suspect, self.name, run_dir.folder)
        if reason is not None:
            return {**row, "refused": reason}
        where = resolve_device(run_dir.device)
        splits = spec.splits(run_dir.data_dir).to(where)
        model, attack = load_subject(self.subject, self.suspect, splits, run_dir, where, progress)
        model = model.to(where)
        samples = samples_of_test(splits, self.clean, self.test_images, spec.seed)
        suspect, _ = load_suspect(self.suspect, splits, run_dir.folder)
        result = evaluate_reactivation(
            model,
            samples.attacker,
            samples.test,
            attack,
            surrogates=[self._surrogate(suspect, samples, where, progress)],
            config=self.config,
            seed=spec.seed,
            device=where,
            progress=progress,
        )
        existence = self._existence(model, suspect, attack, samples, splits, run_dir.folder)
        return {**row, **result.as_dict(), "existence": existence, "refused": None}

    def _surrogate(
        self, suspect: nn.Module, samples: Samples, device: torch.device, progress: bool
    ) -> nn.Module:
        return repair_model(
            FineTuning(epochs=self.surrogate_epochs),
            suspect,
            samples.attacker,
            None,
            batch_size=_BATCH,
            augment=None,
            seed=self.suspect.spec.seed,
            device=device,
            progress=progress,
        ).model

    def _existence(
        self,
        model: nn.Module,
        suspect: nn.Module,
        attack: Attack,
        samples: Samples,
        splits: Splits,
        folder: Path,
    ) -> float:
        never = load_clean_model(self.suspect.clean_job, splits, folder)
        images, _ = attackers_images(samples.attacker, attack, self.config, self.suspect.spec.seed)
        return existence_coefficient(model, suspect, never, images, attack)
