# SPDX-License-Identifier: Apache-2.0
"""Detection and false-alarm rates of ``d3fast inspect`` on models with known truth.

Inspected are backdoored models of every attack, clean models, clean models with twice as many
training images of one class, and backdoored models repaired by D3. The false-alarm rate that sets
the thresholds is the best one of ``RATES`` on digits with the seeds of ``DEVELOPMENT``; reported
are rates on other seeds and on Fashion-MNIST, and the area under the ROC curve of every detector.
Detectors that do not run by default are measured on the models of the seeds ``slow`` of a plan.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import typer
from torch import nn

from benchmarks.studies.harness import Workers, save, start_workers
from benchmarks.studies.inspection_plans import (
    OPTIONS,
    PLANS,
    SPARSE,
    USUAL,
    WAVES,
    StudyPlan,
)
from benchmarks.studies.inspection_rates import RATES, areas, choices, chosen_rate, rates
from benchmarks.studies.inspection_report import FIGURE, roc_figure
from d3fast.attacks import load_attack
from d3fast.audit import InspectOptions, inspect_model
from d3fast.audit.detectors.base import DetectorResult
from d3fast.audit.detectors.registry import DETECTORS
from d3fast.audit.detectors.scores import threshold
from d3fast.audit.resolve import held_out_parts, images_of
from d3fast.benchmark.attack_jobs import (
    AttackJob,
    CleanJob,
    clean_job_of,
)
from d3fast.benchmark.implant import AttackSpec, train_model
from d3fast.data import ImageData, Splits
from d3fast.detox import D3Config, detoxify, repair_samples
from d3fast.models import load_weights
from d3fast.results.engine import run_jobs
from d3fast.results.jobs import Row, RunDir, finished_row, key_of
from d3fast.results.plot import save_png
from d3fast.training.metrics import evaluate

UNEVEN, REPAIRED = "clean, one class twice", "repaired by detox"


@dataclass(frozen=True)
class InspectJob:
    """Inspection of one model.

    Attributes:
        source: the job that trained it; ``None`` trains a clean model with one class twice.
        spec: data, model and training.
        options: options of the inspection.
        repaired: repair it first, as ``d3fast detox`` does.
    """

    source: AttackJob | CleanJob | None
    spec: AttackSpec
    options: InspectOptions
    repaired: bool = False
    kind: ClassVar[str] = "InspectCell"

    @property
    def name(self) -> str:
        """Name for a file."""
        what = "uneven" if self.source is None else self.spec.attack or "clean"
        what += f"-{self.spec.adaptive}" if self.spec.adaptive else ""
        what += "-repaired" if self.repaired else ""
        return f"{self.spec.data}-seed{self.spec.seed}-inspect-{what}"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Inspect the model on the defender's samples."""
        splits = self.spec.splits(run_dir.data_dir)
        if self.source is None:
            named: dict[str, Any] = {"attack": UNEVEN, "target": self.spec.seed % 10, "asr": None}
            model, named["acc"] = _uneven(self.spec, splits, progress)
        else:
            row = finished_row(self.source, run_dir.folder)
            assert row is not None
            named = {key: row.get(key) for key in ("attack", "target", "acc", "asr", "refused")}
            if self.spec.adaptive is not None:
                named["attack"] += f" ({self.spec.adaptive})"
            if self.spec.attack is not None and self.spec.ratio != AttackSpec.ratio:
                named["attack"] += f", {100 * self.spec.ratio:g} % poisoned"
            if named["refused"]:
                return {**named, "seed": self.spec.seed}
            model = trained_model(self.source, splits, run_dir.folder)
            if self.repaired:
                trigger = load_attack(f"{_stem(self.source, run_dir.folder)}.trigger.safetensors")
                model, measured = _repaired(model, splits, trigger, self.spec.seed, progress)
                named |= {"attack": REPAIRED, **measured}
        started = time.perf_counter()
        found = inspect_model(
            model, splits.clean, options=self.options, seed=self.spec.seed, progress=progress
        )
        return {
            **named,
            "seed": self.spec.seed,
            "signs": {result.name: _sign(result) for result in found.results},
            "seconds": time.perf_counter() - started,
        }


def trained_model(source: AttackJob | CleanJob, splits: Splits, folder: Path) -> nn.Module:
    """Return the model that a finished job of a run directory has trained."""
    model = source.spec.initial_model(splits)
    if isinstance(source, CleanJob):
        load_weights(model, source.weights(folder))
    else:
        load_weights(model, f"{source.stem(folder)}.safetensors")
    return model


def _stem(source: AttackJob | CleanJob | None, run_dir: Path) -> Path:
    assert isinstance(source, AttackJob)
    return source.stem(run_dir)


def _repaired(
    model: nn.Module, splits: Splits, trigger: Any, seed: int, progress: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """Repair a model as ``d3fast detox`` does; return it with what was measured."""
    repair, held_out = map(images_of, held_out_parts(splits.clean, 0.25, seed))
    result = detoxify(
        model.eval(),
        repair_samples(repair, seed=seed).loader,
        D3Config.auto(seed=seed),
        held_out.batches(250),
        progress=progress,
    )
    after = evaluate(result.model, splits.test.batches(1000), trigger)
    measured = {"acc": after.acc, "asr": after.asr, "restart": result.config.restart}
    return result.model, measured


def _sign(found: DetectorResult) -> dict[str, Any]:
    """Return what a detector says of a model by itself, whether or not a calibration fits it."""
    value, target = found.alone(DETECTORS.find(found.name)().spread)
    assert value is not None
    finite = min(value, 1e6)  # JSON has no infinity
    return {"value": finite, "target": target, "statistics": list(found.statistics)}


def _uneven(spec: AttackSpec, splits: Splits, progress: bool) -> tuple[nn.Module, float]:
    """Train a clean model without half of the images of all classes but one; return its ACC too."""
    labels = splits.train.labels
    kept = (labels == spec.seed % 10) | (torch.arange(len(labels)) % 2 == 0)
    train: ImageData = splits.train.subset(kept.nonzero()[:, 0])
    model, _ = train_model(spec, replace(splits, train=train), None, progress=progress)
    return model, evaluate(model, splits.test.batches(1000), None).acc


def _aimed(plan: StudyPlan, spec: AttackSpec, place: int) -> AttackSpec:
    """Return the model of the attack at a place of a plan, with the target class of its turn."""
    if not plan.targets:
        return spec
    return replace(spec, target=plan.targets[(place + spec.seed) % len(plan.targets)])


def jobs_of(plan: StudyPlan) -> tuple[list[CleanJob], list[AttackJob], list[InspectJob]]:
    """Return the jobs of clean models, of backdoored models, and of the inspections."""
    twins = [
        clean_job_of(plan.preset.spec(seed, None, None))
        for seed in dict.fromkeys((*plan.clean, *plan.backdoored))
    ]
    attacks = [
        AttackJob(_aimed(plan, plan.preset.spec(seed, name, plan.adaptive), place))
        for place, name in enumerate(plan.attacks)
        for seed in plan.backdoored
    ]
    attacks += [
        AttackJob(replace(plan.preset.spec(seed, "badnets", None), ratio=SPARSE))
        for seed in plan.sparse
    ]
    sources: list[AttackJob | CleanJob] = [
        *attacks,
        *(twin for twin in twins if twin.spec.seed in plan.clean),
    ]
    inspections = [InspectJob(source, source.spec, OPTIONS) for source in sources]
    inspections += [
        replace(job, repaired=True)
        for job in inspections
        if job.spec.attack and job.spec.seed in plan.repaired and job.spec.ratio != SPARSE
    ]
    inspections += [
        replace(job, options=plan.slowly)
        for job in inspections
        if job.spec.seed in plan.slow and not job.repaired
    ]
    for seed in plan.uneven:
        inspections.append(InspectJob(None, plan.preset.spec(seed, None, None), OPTIONS))
    return twins, attacks, inspections


@dataclass(frozen=True)
class Inspected:
    """The inspections of a plan that have been run.

    Attributes:
        rows: one per model.
        missing: number of inspections that have not been run.
    """

    rows: list[Row]
    missing: int


def inspected(name: str, workers: Workers, deadline: float | None = None) -> Inspected:
    """Return the rows of the models of a plan; what is not finished is run, cheap jobs first.

    A model is trained only if one of its inspections is not finished.

    Args:
        name: of the plan.
        workers: run the jobs.
        deadline: by ``time.monotonic``; no job starts after it.
    """
    folder = workers.run_dir.folder
    clean, backdoored, inspections = jobs_of(PLANS[name])
    left = [job for job in inspections if finished_row(job, folder) is None]
    needed = {key_of(job.source) for job in left if job.source is not None}
    attacks = [job for job in backdoored if key_of(job) in needed]
    needed |= {key_of(job.clean_job) for job in attacks}
    run = partial(run_jobs, engine=workers.engine, folder=folder, deadline=deadline)
    run([job for job in clean if key_of(job) in needed], title=f"{name}: clean models")
    run(attacks, title=f"{name}: backdoored models")
    ready = [job for job in left if job.source is None or finished_row(job.source, folder)]
    run(ready, title=f"{name}: inspections")
    rows = [(job, finished_row(job, folder)) for job in inspections]
    found = [(job, row) for job, row in rows if row is not None and not row.get("refused")]
    return Inspected(_merged(name, found), sum(row is None for _, row in rows))


def _merged(name: str, found: Sequence[tuple[InspectJob, Row]]) -> list[Row]:
    """Return one row per model: the scores of a slow detector join those of the others."""
    models: dict[str, Row] = {}
    keys = [key_of(replace(job, options=OPTIONS)) for job, _ in found]
    for key, (job, row) in zip(keys, found, strict=True):
        if job.options == OPTIONS:
            models[key] = {"kind": "inspected", "set": name, **row}
    for key, (job, row) in zip(keys, found, strict=True):
        if job.options == PLANS[name].slowly and key in models:
            own = models[key]
            own["signs"] = {**own["signs"], **row["signs"]}
            own["slow_seconds"] = row["seconds"]
    return list(models.values())


def waves(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/inspect"),
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(help="Start no job after so many; write what there is.")
    ] = None,
) -> None:
    """Run the jobs that are not finished and write ``inspect-waves-cpu.json``."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    with start_workers(out, workers) as pool:
        found = inspected(WAVES, pool, deadline)
    if minutes is None and found.missing:
        raise SystemExit(f"{found.missing} inspections are missing")
    settings = {"missing": found.missing, "options": asdict(OPTIONS)}
    save("inspect-waves-cpu", "waves", settings, [*areas(found.rows, OPTIONS.rate), *found.rows])


def inspection(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/inspect"),
    sets: Annotated[str, typer.Option(help="Comma-separated.")] = USUAL,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(help="Start no job after so many; write what there is.")
    ] = None,
) -> None:
    """Run the jobs that are not finished and write ``inspect-cpu.json`` and its figure."""
    names = sets.split(",")
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    with start_workers(out, workers) as pool:
        found = {name: inspected(name, pool, deadline) for name in names}
    missing = {name: one.missing for name, one in found.items()}
    if minutes is None and any(missing.values()):
        raise SystemExit(f"inspections are missing: {missing}")
    rows = [row for one in found.values() for row in one.rows]
    table = choices([row for row in rows if row["set"] == "development"])
    rate = chosen_rate(table)
    settings = {
        "sets": names,
        "missing": missing,
        "rate": rate,
        "threshold": threshold(10, rate),
        "rates": list(RATES),
        "options": asdict(replace(OPTIONS, rate=rate)),
    }
    every = [*table, *rates(rows, rate), *areas(rows, rate), *rows]
    save("inspect-cpu", "inspection", settings, every)
    save_png(roc_figure(rows, "digits"), FIGURE)
