# SPDX-License-Identifier: Apache-2.0
"""Detection and false-alarm rates of ``d3fast inspect`` on models with known truth.

Inspected are backdoored models of every attack, clean models, clean models with twice as many
training images of one class, and backdoored models repaired by D3. The false-alarm rate that sets
the thresholds is the best one of ``RATES`` on digits with the seeds of ``DEVELOPMENT``; reported
are rates on other seeds and on Fashion-MNIST.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import typer
from torch import nn

from benchmarks.studies.harness import Workers, save, start_workers
from d3fast.attacks import load_attack
from d3fast.audit import InspectOptions, inspect_model
from d3fast.audit.detectors.scores import threshold
from d3fast.audit.resolve import held_out_parts, images_of
from d3fast.benchmark.attack_jobs import (
    ATTACK_PRESETS,
    AttackJob,
    AttackPreset,
    CleanJob,
    clean_job_of,
)
from d3fast.benchmark.implant import AttackSpec, train_model
from d3fast.data import ImageData, Splits
from d3fast.detox import D3Config, detoxify, repair_samples
from d3fast.models import load_weights
from d3fast.results.jobs import Row, RunDir, finished_row
from d3fast.training.intervals import wilson
from d3fast.training.metrics import evaluate

DEVELOPMENT = tuple(range(100, 105))
RATES = (0.005, 0.01, 0.025, 0.05)
CLEAN, UNEVEN, EVERY = "clean", "clean, one class twice", "every attack"
REPAIRED = "repaired by detox"
SPARSE = 0.02
# The rate does not change the scores; this study chooses the default.
OPTIONS = InspectOptions(rate=0.025)


@dataclass(frozen=True)
class StudyPlan:
    """Models of a data set to inspect.

    Attributes:
        preset: data, model and training.
        attacks: names of the attacks.
        backdoored: seeds of the backdoored models.
        clean: seeds of the clean models.
        uneven: seeds of the clean models with one class twice.
        sparse: seeds of BadNets with a poison ratio of ``SPARSE``.
        repaired: seeds of the backdoored models that are also inspected after a repair.
    """

    preset: AttackPreset
    attacks: tuple[str, ...]
    backdoored: tuple[int, ...]
    clean: tuple[int, ...]
    uneven: tuple[int, ...] = ()
    sparse: tuple[int, ...] = ()
    repaired: tuple[int, ...] = ()


_ALL = tuple(name for name, _ in ATTACK_PRESETS["digits"].attacks)
PLANS = {
    "development": StudyPlan(ATTACK_PRESETS["digits"], _ALL, DEVELOPMENT[:3], DEVELOPMENT),
    "digits": StudyPlan(
        ATTACK_PRESETS["digits"],
        _ALL,
        tuple(range(5)),
        tuple(range(20)),
        tuple(range(5)),
        tuple(range(5)),
        tuple(range(3)),
    ),
    "fashion-mnist": StudyPlan(
        ATTACK_PRESETS["cpu"], ("badnets", "blended", "sig", "wanet"), (0, 1, 2), (0, 1, 2)
    ),
}


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
            if self.spec.attack is not None and self.spec.ratio != AttackSpec.ratio:
                named["attack"] += f", {100 * self.spec.ratio:g} % poisoned"
            if named["refused"]:
                return {**named, "seed": self.spec.seed}
            model = self.spec.initial_model(splits)
            load_weights(model, _weights(self.source, run_dir.folder))
            if self.repaired:
                trigger = load_attack(f"{_stem(self.source, run_dir.folder)}.trigger.safetensors")
                model, measured = _repaired(model, splits, trigger, self.spec.seed, progress)
                named |= {"attack": REPAIRED, **measured}
        started = time.perf_counter()
        found = inspect_model(
            model, splits.clean, options=self.options, seed=self.spec.seed, progress=progress
        )
        signs = {f.name: {"value": _finite(f.value), "target": f.target} for f in found.results}
        return {
            **named,
            "seed": self.spec.seed,
            "signs": signs,
            "seconds": time.perf_counter() - started,
        }


def _weights(source: AttackJob | CleanJob, run_dir: Path) -> Path:
    if isinstance(source, CleanJob):
        return source.weights(run_dir)
    return Path(f"{_stem(source, run_dir)}.safetensors")


def _stem(source: AttackJob | CleanJob | None, run_dir: Path) -> Path:
    assert isinstance(source, AttackJob)
    return source.stem(run_dir)


def _repaired(
    model: nn.Module, splits: Splits, trigger: Any, seed: int, progress: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """Repair a model as ``d3fast detox`` does; return it with ACC and ASR on test images."""
    repair, held_out = map(images_of, held_out_parts(splits.clean, 0.25, seed))
    result = detoxify(
        model.eval(),
        repair_samples(repair, seed=seed).loader,
        D3Config.auto(seed=seed),
        held_out.batches(250),
        progress=progress,
    )
    after = evaluate(result.model, splits.test.batches(1000), trigger)
    return result.model, {"acc": after.acc, "asr": after.asr}


def _finite(value: float | None) -> float:
    """Return a score of at most 1e6: JSON has no infinity."""
    assert value is not None
    return min(value, 1e6)


def _uneven(spec: AttackSpec, splits: Splits, progress: bool) -> tuple[nn.Module, float]:
    """Train a clean model without half of the images of all classes but one; return its ACC too."""
    labels = splits.train.labels
    kept = (labels == spec.seed % 10) | (torch.arange(len(labels)) % 2 == 0)
    train: ImageData = splits.train.subset(kept.nonzero()[:, 0])
    model, _ = train_model(spec, replace(splits, train=train), None, progress=progress)
    return model, evaluate(model, splits.test.batches(1000), None).acc


def jobs_of(plan: StudyPlan) -> tuple[list[CleanJob], list[AttackJob], list[InspectJob]]:
    """Return the jobs of clean models, of backdoored models, and of the inspections."""
    twins = [
        clean_job_of(plan.preset.spec(seed, None, None))
        for seed in dict.fromkeys((*plan.clean, *plan.backdoored))
    ]
    attacks = [
        AttackJob(plan.preset.spec(seed, name, None))
        for name in plan.attacks
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
    for seed in plan.uneven:
        inspections.append(InspectJob(None, plan.preset.spec(seed, None, None), OPTIONS))
    return twins, attacks, inspections


def inspected(name: str, workers: Workers) -> list[Row]:
    """Return the rows of all models of a plan; jobs that are not finished are run."""
    clean, backdoored, inspections = jobs_of(PLANS[name])
    workers.run(clean, title=f"{name}: clean models")
    workers.run(backdoored, title=f"{name}: backdoored models")
    rows = workers.run(inspections, title=f"{name}: inspections")
    return [{"kind": "inspected", "set": name, **row} for row in rows if not row.get("refused")]


def flagged(row: Row, rate: float, signs: Sequence[str] | None = None) -> list[tuple[str, int]]:
    """Return (detector, target class) of every detector that flags a model at a rate."""
    above = threshold(10, rate)
    return [
        (name, found["target"])
        for name, found in row["signs"].items()
        if found["value"] > above and (signs is None or name in signs)
    ]


def choices(rows: Sequence[Row]) -> list[Row]:
    """Return the detections and false alarms at each of ``RATES`` on some models."""
    table = []
    for rate in RATES:
        row: Row = {
            "kind": "choice",
            "set": rows[0]["set"],
            "rate": rate,
            "threshold": threshold(10, rate),
        }
        for kind, clean in (("backdoored", False), ("clean", True)):
            alarms = [bool(flagged(r, rate)) for r in rows if (r["attack"] == CLEAN) == clean]
            row |= {f"{kind}_found": sum(alarms), f"{kind}_models": len(alarms)}
        table.append(row)
    return table


def chosen_rate(table: Sequence[Row]) -> float:
    """Return the rate with the largest detection minus false-alarm share; of equals the lowest."""

    def gain(row: Row) -> float:
        found, alarms = (row[f"{k}_found"] / row[f"{k}_models"] for k in ("backdoored", "clean"))
        return found - alarms

    return max(sorted(table, key=lambda row: row["rate"]), key=gain)["rate"]


def rates(rows: Sequence[Row], rate: float) -> Iterator[Row]:
    """Yield the detections per set and attack, of every detector alone and of all together.

    ``EVERY`` combines all attacks at the usual poison ratio. A backdoored model is ``found`` if a
    detector flags it, and ``named`` if one of them points to its target.
    """
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["attack"] in _ALL:
            groups.setdefault((row["set"], EVERY), []).append(row)
        groups.setdefault((row["set"], row["attack"]), []).append(row)
    for (name, attack), own in groups.items():
        for sign in ("all", *own[0]["signs"]):
            detectors = None if sign == "all" else (sign,)
            alarms = [flagged(row, rate, detectors) for row in own]
            found = sum(map(bool, alarms))
            named = sum(
                any(target == row["target"] for _, target in alarm)
                for alarm, row in zip(alarms, own, strict=True)
            )
            low, high = wilson(found, len(own))
            yield {
                "kind": "rate",
                "set": name,
                "attack": attack,
                "sign": sign,
                "found": found,
                "named": None if own[0]["asr"] is None else named,
                "models": len(own),
                "low": low,
                "high": high,
            }


def inspection(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/inspect"),
    sets: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(PLANS),
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
) -> None:
    """Run the jobs that are not finished and write ``inspect-cpu.json``."""
    names = sets.split(",")
    with start_workers(out, workers) as pool:
        rows = [row for name in names for row in inspected(name, pool)]
    table = choices([row for row in rows if row["set"] == "development"])
    rate = chosen_rate(table)
    settings = {
        "sets": names,
        "rate": rate,
        "threshold": threshold(10, rate),
        "rates": list(RATES),
        "options": asdict(replace(OPTIONS, rate=rate)),
    }
    save("inspect-cpu", "inspection", settings, [*table, *rates(rows, rate), *rows])
