# SPDX-License-Identifier: Apache-2.0
"""One cell of the relearning test: how fast a backdoor returns to a repaired model.

The same for the suspect itself and for its clean twin, between which a repair lies.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from d3fast.attacks import Attack, load_attack
from d3fast.benchmark.attack_jobs import AttackCell, CleanCell
from d3fast.benchmark.relearning import KS, RelearnConfig, evaluate_relearning
from d3fast.benchmark.repair_jobs import RepairCell, defender_samples, read_suspect
from d3fast.data import Splits, stratified_split
from d3fast.models import load_weights
from d3fast.results.engine import Place, Row, finished
from d3fast.runtime.checks import check_integer
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.seeding import generator


@dataclass(frozen=True)
class RelearnCell:
    """The relearning test of one model under one trigger.

    Attributes:
        subject: the cell that made the model; it has to be run before.
        suspect: the cell that made the trigger.
        clean: number of the defender's samples; the images to poison are not among them.
        ks: numbers of poisoned samples.
        test_images: ACC and ASR are measured on so many test images, or on all if there are fewer.
        config: how the model is fine-tuned.

    Raises:
        ValueError: a number out of range.
    """

    subject: RepairCell | AttackCell | CleanCell
    suspect: AttackCell
    clean: int
    ks: tuple[int, ...] = KS
    test_images: int = 2000
    config: RelearnConfig = field(default_factory=RelearnConfig)

    def __post_init__(self) -> None:
        check_integer("test_images", self.test_images, 1)

    @property
    def name(self) -> str:
        """Fit for a file name."""
        what = "suspect"
        if isinstance(self.subject, RepairCell):
            what = self.subject.defense
        elif isinstance(self.subject, CleanCell):
            what = "clean"
        return f"{self.suspect.name}-relearning-{what}"

    def run(self, place: Place, progress: bool) -> Row:
        """Fine-tune on few poisoned samples and measure the ASR."""
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
        if (reason := self._missing(place.folder)) is not None:
            return {**row, "refused": reason}
        where = resolve_device(place.device)
        splits = spec.splits(place.data_dir).to(where)
        model, attack = self._model(splits, place, where, progress)
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
        """Why there is no model or no trigger."""
        for cell in (self.suspect, self.subject):
            row = finished(cell, folder)
            if row is None:
                raise ValueError(f"{cell.name} has to be run before {self.name}")
            if row.get("refused"):
                return str(row["refused"])
        return None

    def _model(
        self, splits: Splits, place: Place, device: torch.device, progress: bool
    ) -> tuple[nn.Module, Attack]:
        subject = self.subject
        if isinstance(subject, AttackCell):
            return read_suspect(subject, splits, place.folder)
        if isinstance(subject, CleanCell):
            model = subject.spec.fresh_model(splits)
            load_weights(model, subject.weights(place.folder))
            stem = self.suspect.stem(place.folder)
            return model, load_attack(f"{stem}.trigger.safetensors")
        model, attack = read_suspect(subject.suspect, splits, place.folder)
        kept = subject.weights(place.folder)
        if kept.is_file():
            load_weights(model, kept)
            return model, attack
        # Its cell was finished when nobody asked to keep the model: the same repair gives it again.
        return subject.repair(model.to(device), splits.clean, device, progress).model, attack
