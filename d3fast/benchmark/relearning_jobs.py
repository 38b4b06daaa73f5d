# SPDX-License-Identifier: Apache-2.0
"""One job of the relearning test: how fast a backdoor returns to a repaired model.

The suspect and the clean model take the same test; a repaired model lies between them.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from d3fast.benchmark.attack_jobs import AttackJob
from d3fast.benchmark.relearning import KS, RelearnConfig, evaluate_relearning
from d3fast.benchmark.subjects import (
    Subject,
    load_subject,
    position,
    samples_of_test,
    subject_name,
    why_missing,
)
from d3fast.results.jobs import Row, RunDir
from d3fast.runtime.checks import check_integer
from d3fast.runtime.devices import resolve_device


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

    subject: Subject
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
        return f"{self.suspect.name}-relearning-{subject_name(self.subject)}"

    @property
    def needs(self) -> tuple[Subject, ...]:
        """The jobs of the trigger and of the model."""
        return (self.suspect, self.subject)

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Fine-tune the model on few poisoned samples and measure the ASR."""
        spec, row = self.suspect.spec, position(self.suspect, self.clean)
        reason = why_missing(self.subject, self.suspect, self.name, run_dir.folder)
        if reason is not None:
            return {**row, "refused": reason}
        where = resolve_device(run_dir.device)
        splits = spec.splits(run_dir.data_dir).to(where)
        model, attack = load_subject(self.subject, self.suspect, splits, run_dir, where, progress)
        samples = samples_of_test(splits, self.clean, self.test_images, spec.seed)
        result = evaluate_relearning(
            model.to(where),
            samples.attacker,
            samples.test,
            attack,
            ks=self.ks,
            config=self.config,
            seed=spec.seed,
            device=where,
            progress=progress,
        )
        return {**row, **result.as_dict(), "refused": None}
