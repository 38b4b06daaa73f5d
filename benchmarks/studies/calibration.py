# SPDX-License-Identifier: Apache-2.0
"""The calibrations that d3fast ships, and the verdict that they give on models with known truth.

Clean models are trained with seeds from 1000 on, which no other study uses. They turn the results
of the models of the plan ``calibrated`` of the study ``inspection`` into p-values: by the same
class of the clean models and, for comparison, by the scores that each model has by itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import torch
import typer
from rich.console import Console

from benchmarks.studies.harness import RESULTS, save, start_workers
from benchmarks.studies.inspection import inspected
from benchmarks.studies.inspection_plans import CALIBRATED, CALIBRATED_FASHION, TARGETS
from benchmarks.studies.inspection_rates import ALL, CLEAN, EVERY
from benchmarks.studies.inspection_report import curves_figure
from benchmarks.studies.roc import auc, auc_interval
from d3fast.attacks import ATTACKS, TrainConfig
from d3fast.audit.calibrate import CalibrationOptions, run_calibration
from d3fast.audit.calibration import SHIPPED, Calibrated, Calibration, read_calibration
from d3fast.audit.calibration_jobs import CalibrationInput
from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS
from d3fast.audit.inspect import InspectOptions
from d3fast.audit.verdict import flagged_first
from d3fast.data import ImageData, load
from d3fast.io.files import make_folder
from d3fast.models import make_model
from d3fast.results.jobs import Row
from d3fast.results.plot import save_png
from d3fast.results.store import Results, read_results
from d3fast.runtime.checks import check_choice
from d3fast.training.intervals import wilson

RATES = (0.02, 0.05)
FOUR = "four"
FIGURES = Path(__file__).resolve().parents[2] / "docs"
_NO_SEED = 1000  # of a split that is put together again
_INFINITE = 1e6  # of the study's rows
_DETECTORS = (*DEFAULT_DETECTORS, "wave")


@dataclass(frozen=True)
class Studied:
    """A calibration of the study.

    Attributes:
        data: name of the data set.
        model: name of the architecture.
        options: of the calibration.
        plan: of the study ``inspection``, whose models are compared with it.
        result: name of its file among the results; ``None`` for one that comes with the package.
    """

    data: str
    model: str
    options: CalibrationOptions
    plan: str
    result: str | None = None

    @property
    def path(self) -> Path:
        """Where the file is."""
        if self.result is not None:
            return RESULTS / f"{self.result}.json"
        return SHIPPED / f"{self.data}-{self.model}.json"


_SHORT = CalibrationOptions(
    models=40,
    train=10_000,
    training=TrainConfig(epochs=5, channels_last=True),
    recipes="fashion-mnist",
    inspection=InspectOptions(detectors=_DETECTORS),
)
# As the other studies train and inspect them, and Fashion-MNIST on half of the images for half of
# the epochs, which shows what the difference costs.
CALIBRATIONS: Mapping[str, Studied] = MappingProxyType(
    {
        "digits": Studied(
            "digits",
            "preact_resnet_narrow",
            CalibrationOptions(
                models=50,
                train=1177,
                training=TrainConfig(epochs=20, channels_last=True),
                recipes="digits",
                inspection=InspectOptions(samples=260, detectors=_DETECTORS),
            ),
            CALIBRATED,
        ),
        "fashion-mnist": Studied(
            "fashion-mnist",
            "preact_resnet_tiny",
            replace(_SHORT, train=20_000, training=TrainConfig(epochs=10, channels_last=True)),
            CALIBRATED_FASHION,
        ),
        "fashion-mnist-short": Studied(
            "fashion-mnist",
            "preact_resnet_tiny",
            _SHORT,
            CALIBRATED_FASHION,
            "clean-models-fashion-mnist-short",
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


def make(studied: Studied, out: Path, workers: int, command: str) -> None:
    """Run the jobs of a calibration that are not finished and write its file."""
    data = all_images(studied.data)
    model = make_model(studied.model, len(data.classes), data.shape[0])
    given = CalibrationInput(model, data, make_folder(out / studied.data), studied.model)
    rows = run_calibration(
        given,
        studied.options,
        name=studied.model,
        data=studied.data,
        devices=["cpu"] * workers,
    )
    path = studied.path
    make_folder(path.parent)
    Results(command, {"options": asdict(studied.options)}, rows).write(path)
    Console().print(f"Written to {path}.", highlight=False)


def results_of(
    row: Row, detectors: Sequence[str] | None = None, *, by_class: bool = True
) -> list[DetectorResult]:
    """Return what the study ``inspection`` has of a model as results of detectors.

    Args:
        row: of the model.
        detectors: their names; all if ``None``.
        by_class: with the statistics of the classes, which are then compared; else the scores are.
    """
    return [
        DetectorResult(
            name,
            float("inf") if found["value"] >= _INFINITE else found["value"],
            0.0,
            found["target"],
            name,
            statistics=tuple(found.get("statistics", ())) if by_class else (),
        )
        for name, found in row["signs"].items()
        if detectors is None or name in detectors
    ]


@dataclass(frozen=True)
class Verdicts:
    """What some detectors say of the models of one attack, compared with a calibration.

    Attributes:
        rows: the models.
        rated: the results of each, at one rate.
        found: the p-value of each.
    """

    rows: Sequence[Row]
    rated: Sequence[Sequence[DetectorResult]]
    found: Sequence[Calibrated]

    @property
    def largest(self) -> list[float]:
        """Of each model the score that orders models with the same p-value."""
        return [calibrated.largest for calibrated in self.found]

    @property
    def alarms(self) -> int:
        """Models that a detector flags."""
        return sum(any(result.flagged for result in each) for each in self.rated)

    @property
    def named(self) -> int | None:
        """Flagged models whose target is the class of the least likely result."""
        if self.rows[0]["asr"] is None:
            return None
        first = [flagged_first(each)[:1] for each in self.rated]
        return sum(
            any(result.target == row["target"] for result in each)
            for row, each in zip(self.rows, first, strict=True)
        )


def verdicts(
    rows: Sequence[Row],
    calibration: Calibration,
    rate: float,
    detectors: Sequence[str] | None = None,
    *,
    by_class: bool = True,
) -> Verdicts:
    """Return what detectors say of models; arguments as of ``results_of``."""
    classes = tuple(map(str, range(calibration.about.classes)))
    each = [results_of(row, detectors, by_class=by_class) for row in rows]
    applied = [calibration.apply(results, rate, classes) for results in each]
    found = [calibrated for _, calibrated in applied if calibrated is not None]
    return Verdicts(rows, [rated for rated, _ in applied], found)


def groups_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the models by attack, those of every attack together first."""
    groups: dict[str, list[Row]] = {EVERY: [row for row in rows if row["attack"] in ATTACKS]}
    for row in rows:
        groups.setdefault(row["attack"], []).append(row)
    return {attack: own for attack, own in groups.items() if own}


def calibrated_rates(rows: Sequence[Row], calibration: Calibration) -> Iterator[Row]:
    """Yield what every set of detectors finds of every attack, by class and by score.

    ``auc`` compares with the clean models among ``rows``, which are not those of the calibration.

    Args:
        rows: inspected models of one set.
        calibration: of their architecture.
    """
    every = list(rows[0]["signs"])
    sets = {FOUR: DEFAULT_DETECTORS, ALL: every, **{name: (name,) for name in every}}
    clean = [row for row in rows if row["attack"] == CLEAN]
    for label, detectors in sets.items():
        for by_class in (True, False):
            for rate in RATES:
                said = partial(
                    verdicts,
                    calibration=calibration,
                    rate=rate,
                    detectors=detectors,
                    by_class=by_class,
                )
                negatives = said(clean).largest
                for attack, own in groups_of(rows).items():
                    found = said(own)
                    low, high = wilson(found.alarms, len(own))
                    yield {
                        "kind": "calibrated",
                        "set": own[0]["set"],
                        "attack": attack,
                        "detectors": label,
                        "by_class": by_class,
                        "rate": found.found[0].rate,
                        "models": len(own),
                        "found": found.alarms,
                        "named": found.named,
                        "low": low,
                        "high": high,
                        **_area(attack, found.largest, negatives),
                    }


def roc_curves(
    rows: Sequence[Row], calibration: Calibration
) -> dict[str, tuple[list[bool], list[float]]]:
    """Return the curves of every detector and of all, by class, and of all by score."""
    own = [row for row in rows if row["attack"] in (CLEAN, *ATTACKS)]
    truth = [row["attack"] != CLEAN for row in own]
    score = partial(verdicts, own, calibration, RATES[0])
    curves = {"all": (truth, score().largest)}
    for name in own[0]["signs"]:
        curves[name] = truth, score((name,)).largest
    curves["all, by score"] = truth, score(by_class=False).largest
    return curves


def _area(attack: str, own: Sequence[float], clean: Sequence[float]) -> Row:
    if attack == CLEAN or not clean:
        return {"auc": None}
    area = auc(own, clean)
    return {"auc": area, "auc_interval": list(auc_interval(area, len(own), len(clean)))}


def calibration(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/calibration"),
    data: Annotated[str, typer.Option(help="One of the calibrations.")] = "digits",
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    train: Annotated[bool, typer.Option(help="Make the calibration first.")] = True,
) -> None:
    """Run the jobs that are not finished; write the calibration, the result file and its figure.

    Models of every attack and clean ones are trained and compared with the calibration.
    """
    torch.set_num_threads(1)
    check_choice("data", data, CALIBRATIONS)
    studied = CALIBRATIONS[data]
    command = f"calibration --data {data}"
    if train:
        make(studied, out, workers, f"python -m benchmarks.studies {command}")
    with start_workers(out / studied.plan, workers) as pool:
        seen = inspected(studied.plan, pool)
    if seen.missing:
        raise SystemExit(f"{seen.missing} inspections are missing")
    found = read_calibration(studied.path)
    about: Row = {
        "kind": "clean models",
        "set": studied.plan,
        "models": len(found.clean),
        "acc": [model.acc for model in found.clean],
        "sha256": found.sha256,
    }
    rows = [about, *calibrated_rates(seen.rows, found), *seen.rows]
    save(f"calibration-{data}-cpu", command, {"rates": list(RATES)}, rows)
    if studied.result is None:
        figure = curves_figure(roc_curves(seen.rows, found))
        save_png(figure, FIGURES / f"calibrated-roc-{data}.png")


def targets(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/targets"),
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
) -> None:
    """Run the jobs that are not finished and write ``calibration-targets-cpu.json``.

    Backdoored models of digits whose target classes are not those of the recipes are compared with
    the calibration; the clean models beside them are those of ``calibration --data digits``.
    """
    with start_workers(out, workers) as pool:
        seen = inspected(TARGETS, pool)
    if seen.missing:
        raise SystemExit(f"{seen.missing} inspections are missing")
    name = "calibration-digits-cpu"
    before = read_results(RESULTS / f"{name}.json")
    clean = [row for row in before.rows if row["kind"] == "inspected" and row["attack"] == CLEAN]
    rows = [*seen.rows, *({**row, "set": TARGETS} for row in clean)]
    found = read_calibration(CALIBRATIONS["digits"].path)
    settings = {"rates": list(RATES), "clean": name}
    save("calibration-targets-cpu", "targets", settings, [*calibrated_rates(rows, found), *rows])
