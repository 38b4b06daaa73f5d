# SPDX-License-Identifier: Apache-2.0
"""The calibrations that d3fast ships, and the verdict that they give on models with known truth.

Clean models are trained with seeds from 1000 on, which no other study uses. Their scores turn those
of ``inspect-cpu.json`` into p-values; the models of its set ``development`` are left out.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.studies.harness import RESULTS, save
from d3fast.attacks import TrainConfig
from d3fast.audit.calibrate import CalibrationOptions, run_calibration
from d3fast.audit.calibration import SHIPPED, Calibration, read_calibration
from d3fast.audit.calibration_jobs import CalibrationInput
from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.detectors.scores import threshold
from d3fast.audit.inspect import InspectOptions
from d3fast.data import ImageData, load
from d3fast.io.files import make_folder
from d3fast.models import make_model
from d3fast.results.jobs import Row
from d3fast.results.store import Results
from d3fast.training.intervals import wilson

RATES = (0.01, 0.025, 0.05)
_NO_SEED = 1000  # of a split that is put together again
_INFINITE = 1e6  # of the study's rows


@dataclass(frozen=True)
class Shipped:
    """A calibration of the package.

    Attributes:
        data: name of the data set.
        model: name of the architecture.
        options: of the calibration.
    """

    data: str
    model: str
    options: CalibrationOptions

    @property
    def name(self) -> str:
        """Name of the file."""
        return f"{self.data}-{self.model}"


# Digits as the other studies train and inspect them; Fashion-MNIST on half of their images for half
# of their epochs.
CALIBRATIONS: Mapping[str, Shipped] = MappingProxyType(
    {
        "digits": Shipped(
            "digits",
            "preact_resnet_narrow",
            CalibrationOptions(
                models=40,
                train=1177,
                training=TrainConfig(epochs=20, channels_last=True),
                recipes="digits",
                inspection=InspectOptions(samples=260),
            ),
        ),
        "fashion-mnist": Shipped(
            "fashion-mnist",
            "preact_resnet_tiny",
            CalibrationOptions(
                models=40,
                train=10_000,
                training=TrainConfig(epochs=5, channels_last=True),
                recipes="fashion-mnist",
            ),
        ),
    }
)


def all_images(name: str) -> ImageData:
    """Return a whole data set, training and test images."""
    splits = load(name, _NO_SEED, clean=0)
    parts = (splits.train, splits.test)
    images, labels = (
        torch.cat([getattr(part, field) for part in parts]) for field in ("images", "labels")
    )
    return ImageData(images, labels, splits.train.classes)


def make(shipped: Shipped, out: Path, workers: int, command: str) -> None:
    """Run the jobs of a calibration that are not finished and write its file."""
    data = all_images(shipped.data)
    model = make_model(shipped.model, len(data.classes), data.shape[0])
    given = CalibrationInput(model, data, make_folder(out / shipped.data), shipped.model)
    rows = run_calibration(
        given,
        shipped.options,
        name=shipped.model,
        data=shipped.data,
        devices=["cpu"] * workers,
    )
    path = SHIPPED / f"{shipped.name}.json"
    Results(command, {"options": asdict(shipped.options)}, rows).write(path)
    Console().print(f"Written to {path}.", highlight=False)


def results_of(row: Row) -> list[DetectorResult]:
    """Return the scores of a row of ``inspect-cpu.json`` as results of detectors."""
    return [
        DetectorResult(
            name, float("inf") if s["value"] >= _INFINITE else s["value"], 0.0, s["target"], name
        )
        for name, s in row["signs"].items()
    ]


def flagged(row: Row, calibration: Calibration, rate: float) -> tuple[list[int], float]:
    """Return the targets of the detectors that flag a model, and the model's p-value."""
    rated, found = calibration.apply(results_of(row), rate)
    assert found is not None
    return [result.target for result in rated if result.flagged], found.p_value


def rates(rows: Sequence[Row], calibration: Calibration, before: float) -> Iterator[Row]:
    """Yield found and named models per set and attack, at every rate and by the fixed thresholds.

    Args:
        rows: models of one set.
        calibration: of their architecture.
        before: rate per detector that sets the thresholds without a calibration.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["attack"], []).append(row)
    limit = threshold(calibration.about.classes, before)
    for attack, own in groups.items():
        for rate in (None, *RATES):
            alarms = []
            for row in own:
                if rate is None:
                    fixed = [s["target"] for s in row["signs"].values() if s["value"] > limit]
                    alarms.append(fixed)
                else:
                    alarms.append(flagged(row, calibration, rate)[0])
            found = sum(map(bool, alarms))
            low, high = wilson(found, len(own))
            yield {
                "kind": "calibrated",
                "set": own[0]["set"],
                "attack": attack,
                "rate": rate,
                "found": found,
                "named": sum(
                    row["target"] in alarm for row, alarm in zip(own, alarms, strict=True)
                ),
                "models": len(own),
                "low": low,
                "high": high,
            }


def calibration(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/calibration"),
    sets: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(CALIBRATIONS),
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    train: Annotated[bool, typer.Option(help="Make the calibrations first.")] = True,
) -> None:
    """Run the jobs that are not finished; write the calibrations and ``calibration-cpu.json``."""
    torch.set_num_threads(1)
    study = json.loads((RESULTS / "inspect-cpu.json").read_text())
    before = study["settings"]["rate"]
    inspected = [row for row in study["rows"] if row["kind"] == "inspected"]
    table: list[Row] = []
    names = sets.split(",")
    for name in names:
        shipped = CALIBRATIONS[name]
        if train:
            command = f"python -m benchmarks.studies calibration --sets {name}"
            make(shipped, out, workers, command)
        found = read_calibration(SHIPPED / f"{shipped.name}.json")
        own = [row for row in inspected if row["set"] == name]
        table += rates(own, found, before)
        table += [
            {
                "kind": "model",
                "set": name,
                "attack": row["attack"],
                "seed": row["seed"],
                "p_value": flagged(row, found, RATES[0])[1],
            }
            for row in own
        ]
        table.append(
            {
                "kind": "clean models",
                "set": name,
                "models": len(found.clean),
                "acc": [model.acc for model in found.clean],
                "sha256": found.sha256,
            }
        )
    settings = {"sets": names, "rates": list(RATES), "before": before}
    save("calibration-cpu", "calibration --no-train", settings, table)
