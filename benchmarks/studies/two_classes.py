# SPDX-License-Identifier: Apache-2.0
"""Models of two classes, even and odd digits, compared with clean ones.

The first clean models are the calibration; the others and the backdoored ones are compared with it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.studies.calibration import all_images
from benchmarks.studies.harness import save
from benchmarks.studies.inspection_rates import CLEAN
from d3fast.attacks import TrainConfig
from d3fast.audit.calibrate import CalibrationOptions, run_calibration
from d3fast.audit.calibration import Calibration, parse_calibration
from d3fast.audit.calibration_jobs import CalibrationInput
from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS
from d3fast.audit.inspect import InspectOptions
from d3fast.audit.verdict import flagged_first
from d3fast.data import ImageData
from d3fast.io.files import make_folder
from d3fast.models import make_model
from d3fast.results.format import MISSING, mean, percent, value_range
from d3fast.results.jobs import Row
from d3fast.results.schema.calibration import ScoredModelRow
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown
from d3fast.training.intervals import wilson

MODEL = "preact_resnet_narrow"
CLASSES = ("even", "odd")
CALIBRATION = 30  # clean models
RATE = 0.05
OPTIONS = CalibrationOptions(
    models=CALIBRATION + 20,
    backdoored=12,
    attacks=("badnets", "blended", "sig", "wanet"),
    recipes="digits",
    train=1177,
    training=TrainConfig(epochs=20, channels_last=True),
    inspection=InspectOptions(samples=260),
)


def parity() -> ImageData:
    """Return digits, labelled as even (0) or odd (1)."""
    data = all_images("digits")
    return replace(data, labels=data.labels % 2, classes=CLASSES)


def results_of(model: ScoredModelRow) -> list[DetectorResult]:
    """Return what the default detectors say of a model, as an inspection does."""
    return [
        DetectorResult(
            score.name, None, 0.0, None, score.name, statistics=tuple(score.statistics or ())
        )
        for score in model.scores
        if score.name in DEFAULT_DETECTORS
    ]


def verdict_rows(
    models: Sequence[ScoredModelRow], calibration: Calibration, rate: float
) -> Iterator[Row]:
    """Yield what the detectors find of the models of every attack, and of the clean ones.

    Args:
        models: not those of the calibration.
        calibration: clean models.
        rate: false alarms of all detectors together.
    """
    for attack in dict.fromkeys(model.attack for model in models):
        own = [model for model in models if model.attack == attack]
        rated = [calibration.apply(results_of(model), rate, CLASSES)[0] for model in own]
        first = [flagged_first(each)[:1] for each in rated]
        low, high = wilson(sum(map(bool, first)), len(own))
        yield {
            "kind": "two classes",
            "attack": attack or CLEAN,
            "rate": rate,
            "models": len(own),
            "acc": mean(model.acc for model in own),
            "asr": None if attack is None else mean(model.asr for model in own),
            "flagged_by": {
                name: sum(r.flagged for each in rated for r in each if r.name == name)
                for name in DEFAULT_DETECTORS
            },
            "found": sum(map(bool, first)),
            "named": sum(
                result.target == model.target
                for model, each in zip(own, first, strict=True)
                for result in each
            ),
            "low": low,
            "high": high,
        }


def two_classes_table(results: Results) -> str:
    """Return one line per attack: models flagged by each detector and by all, targets named."""
    lines = [
        [
            row["attack"],
            str(row["models"]),
            percent(row["acc"]),
            MISSING if row["asr"] is None else percent(row["asr"]),
            *(str(count) for count in row["flagged_by"].values()),
            f"{row['found']} ({value_range(100 * row['low'], 100 * row['high'], 0)} %)",
            MISSING if row["asr"] is None else str(row["named"]),
        ]
        for row in results.rows
        if row["kind"] == "two classes"
    ]
    heads = ["", "models", "ACC %", "ASR %", *DEFAULT_DETECTORS, "flagged (95 %)", "named"]
    return to_markdown(text_table(heads, lines))


def two_classes(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/two-classes"),
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
) -> None:
    """Run the jobs that are not finished and write ``two-classes-cpu.json``."""
    torch.set_num_threads(1)
    data = parity()
    model = make_model(MODEL, len(CLASSES), data.shape[0])
    given = CalibrationInput(model, data, make_folder(out), MODEL)
    devices = ["cpu"] * workers
    rows = run_calibration(given, OPTIONS, name=MODEL, data="digits, even or odd", devices=devices)
    digest = 64 * "0"  # of no file
    calibration = parse_calibration(Results("", {}, rows[: 1 + CALIBRATION]), digest)
    others = parse_calibration(Results("", {}, rows), digest).models[CALIBRATION:]
    settings = {"rate": RATE, "calibration": CALIBRATION, "options": asdict(OPTIONS)}
    found = verdict_rows(others, calibration, RATE)
    save("two-classes-cpu", "two-classes", settings, [*found, *rows])
