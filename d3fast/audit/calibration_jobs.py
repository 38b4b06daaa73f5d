# SPDX-License-Identifier: Apache-2.0
"""The jobs of a calibration: train a model on one part of the samples, score it on the other.

One job trains a model and saves its weights; one more per detector computes a score. A detector
that is added later costs its own scores only.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from d3fast.attacks import TrainConfig, recipe, train_backdoored
from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.detectors.registry import DETECTORS, WEIGHT_DETECTORS
from d3fast.audit.inspect import InspectOptions, inspect_model
from d3fast.audit.inversion import InversionOptions
from d3fast.audit.weights import scan_weights
from d3fast.data import ImageData, stratified_split
from d3fast.detox import save_weights
from d3fast.hub.classifier import Classifier
from d3fast.io.files import make_folder
from d3fast.models import load_weights, make_model
from d3fast.models.reset import reinitialized
from d3fast.results.jobs import Row, key_of
from d3fast.runtime.seeding import generator, global_seed
from d3fast.training.metrics import evaluate

_BATCH = 250
_MEASURED = 2000  # samples for ACC and ASR


@dataclass(frozen=True, eq=False)
class CalibrationInput:
    """What the jobs of a calibration share.

    Attributes:
        model: of the architecture to calibrate; its weights are not used.
        data: clean samples to train and to inspect on.
        folder: run directory.
        factory: name or factory that builds the architecture; ``None`` where only ``model`` tells.
        mean: normalization in front of what the factory builds; ``None`` for none.
        std: as ``mean``.
        device: where a job computes.
    """

    model: nn.Module
    data: ImageData
    folder: Path
    factory: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    device: str = "cpu"

    def to(self, device: torch.device) -> "CalibrationInput":
        """Return the same input for a worker on a device."""
        return replace(self, device=str(device))

    def initial_model(self, seed: int) -> nn.Module:
        """Return a model of the architecture with random weights."""
        if self.factory is None:
            return reinitialized(self.model, seed)
        with global_seed(seed):
            model = make_model(self.factory, len(self.data.classes), self.data.shape[0])
        return Classifier(model, self.mean, self.std)

    def parts(self, train: int, seed: int) -> tuple[ImageData, ImageData]:
        """Return stratified samples to train on, and those that are left."""
        sizes = [train, len(self.data) - train]
        draws = generator(seed, "calibration samples")
        kept, left = stratified_split(self.data.labels, sizes, draws)
        return self.data.subset(kept.sort().values), self.data.subset(left.sort().values)


@dataclass(frozen=True)
class TrainJob:
    """Train one model, clean or backdoored, and save its weights.

    Attributes:
        seed: draws weights, samples to train on, poisoned samples and the order of batches.
        architecture: digest of the architecture.
        samples: fingerprint of all samples.
        train: number of samples to train on.
        training: the recipe.
        attack: name of an attack; ``None`` for a clean model.
        recipes: data set whose options of the attack are taken.
        target: target class of the attack.
        ratio: poison ratio.
    """

    seed: int
    architecture: str
    samples: str
    train: int
    training: TrainConfig
    attack: str | None = None
    recipes: str | None = None
    target: int | None = None
    ratio: float = 0.1
    kind: ClassVar[str] = "CalibrationModel"

    @property
    def name(self) -> str:
        """Name of the job, fit for a file name."""
        return f"calibration-seed{self.seed}-{self.attack or 'clean'}"

    def weights(self, folder: Path) -> Path:
        """Return the path of the trained model."""
        return folder / "models" / f"{key_of(self)}.safetensors"

    def run(self, shared: CalibrationInput, progress: bool) -> Row:
        """Train the model and measure ACC and ASR on the samples that are left."""
        train, left = shared.parts(self.train, self.seed)
        attack = None
        if self.attack is not None:
            attack = recipe(self.attack, str(self.recipes), self.target)
        model = train_backdoored(
            shared.initial_model(self.seed),
            train,
            attack,
            ratio=self.ratio,
            seed=self.seed,
            config=self.training,
            device=shared.device,
            progress=progress,
        )
        shown = _at_most(left, _MEASURED, self.seed).to(shared.device)
        measured = evaluate(model, shown.batches(_BATCH), attack)
        make_folder(shared.folder / "models")
        save_weights(model, self.weights(shared.folder))
        return {"seed": self.seed, "acc": measured.acc, "asr": measured.asr}


@dataclass(frozen=True)
class ScoreJob:
    """The score of one detector on one trained model.

    Attributes:
        model: the job that trained it.
        detector: name of the detector.
        inversion: options of the trigger inversion.
        samples: largest number of samples to inspect with.
        classes: largest number of classes that a search looks at.
    """

    model: TrainJob
    detector: str
    inversion: InversionOptions
    samples: int
    classes: int
    kind: ClassVar[str] = "CalibrationScore"

    @property
    def name(self) -> str:
        """Name of the job, fit for a file name."""
        return f"{self.model.name}-{self.detector.replace(':', '-')}"

    def run(self, shared: CalibrationInput, progress: bool) -> Row:
        """Run the detector on samples that the model was not trained on."""
        model = shared.initial_model(self.model.seed)
        load_weights(model, self.model.weights(shared.folder))
        model.to(shared.device).eval()
        # The same scores in half of the time on a CPU.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        found = self._result(model, shared, progress)
        detector = WEIGHT_DETECTORS.get(self.detector) or DETECTORS.find(self.detector)
        value, target = found.alone(detector().spread)
        return {
            "value": None if value is None or math.isinf(value) else value,
            "target": target,
            "statistics": list(found.statistics) or None,
        }

    def _result(self, model: nn.Module, shared: CalibrationInput, progress: bool) -> DetectorResult:
        if self.detector in WEIGHT_DETECTORS:
            results = scan_weights(model, shared.data.classes).results
            return next(result for result in results if result.name == self.detector)
        _, left = shared.parts(self.model.train, self.model.seed)
        options = InspectOptions(
            inversion=self.inversion,
            detectors=(self.detector,),
            samples=self.samples,
            classes=self.classes,
        )
        inspected = inspect_model(
            model,
            _at_most(left, self.samples, self.model.seed).to(shared.device),
            options=options,
            seed=self.model.seed,
            progress=progress,
        )
        return inspected.results[0]


def _at_most(data: ImageData, count: int, seed: int) -> ImageData:
    """Return some of the samples, stratified."""
    if len(data) <= count:
        return data
    (chosen,) = stratified_split(data.labels, [count], generator(seed, "calibration inspection"))
    return data.subset(chosen.sort().values)
