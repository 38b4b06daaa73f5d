# SPDX-License-Identifier: Apache-2.0
"""Trigger inversion by decoupled features as a detector without a scan of classes.

A generator of triggers that no class is asked of, as in BTI-DBF (``d3fast.defenses.bti_dbf``), is
trained on development models. The number of a class c is the mean over images of other classes of
its score minus the mean score, on the images that the generator makes; ``shares`` are the shares of
these images that the model answers c. Existing detectors look at the same models. Clean models are
compared with the other clean ones, class by class, as a calibration does.

The tried detector is not part of the package: docs/detectors.md, "What was tried and left out".
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import Annotated, ClassVar

import torch
import typer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.studies.harness import save, start_workers
from benchmarks.studies.inspection import trained_model
from benchmarks.studies.inspection_cost import SHAPES, Shape, random_model
from benchmarks.studies.inspection_rates import CLEAN, EVERY
from benchmarks.studies.roc import auc
from d3fast.audit.conformal import per_class_scores
from d3fast.audit.detectors.context import InspectionContext, open_context
from d3fast.audit.detectors.registry import DETECTORS
from d3fast.audit.detectors.scores import outlier_score
from d3fast.audit.inspect import InspectOptions, inspect_model
from d3fast.benchmark.attack_jobs import ATTACK_PRESETS, AttackJob, CleanJob, clean_job_of
from d3fast.data import ImageData
from d3fast.defenses.bti_dbf import InversionByFeatures, Trigger, benign_mask, invert
from d3fast.defenses.channels import head_inputs
from d3fast.optim import find_head
from d3fast.results.engine import run_jobs
from d3fast.results.format import fixed
from d3fast.results.jobs import Job, Row, RunDir, finished_row
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown
from d3fast.training.loaders import class_scores

CLEAN_SEEDS, SEEDS = tuple(range(100, 112)), (100, 101)
_BATCH = 32
_LARGEST = 1e6  # JSON has no infinity
_ENOUGH = -5.0  # margin below which an image counts as moved
_KEPT = 0.01  # weight of the benign features in the authors' code

Batches = list[tuple[Tensor, Tensor]]
Loss = Callable[[Tensor, Tensor], Tensor]  # of images and labels


@dataclass(frozen=True)
class FeatureScan:
    """One generator, and what the model answers to its images.

    Args:
        objective: ``"defense"`` for both problems of ``BTIDBF``; ``"published"`` for those of the
            authors' code, whose mask starts at random, is squared with the change, and counts a
            hundredth for benign features; ``"margin"`` for the margin of the true label, no mask.
        inversion: number of steps, learning rates and bound.
    """

    objective: str
    inversion: InversionByFeatures

    def __call__(self, context: InspectionContext) -> tuple[list[float], list[float]]:
        """Return the number of each class, and the share of images that the model answers it."""
        model, images, labels = context.model, context.images, context.labels
        head = find_head(model)[1]
        assert isinstance(head, nn.Linear)
        order = torch.randperm(len(labels), generator=context.draws("batches of features"))
        batches = [(images[at], labels[at]) for at in order.split(_BATCH)]
        with torch.random.fork_rng():
            torch.manual_seed(context.draws("trigger generator").initial_seed())
            trigger = Trigger(images.shape[1], self.inversion.bound)
        draws = context.draws("start of the mask")
        with torch.enable_grad():
            self._train(model, head, trigger, batches, draws)
        with torch.no_grad():
            made = torch.cat([context.scores(trigger(part)) for part in images.split(256)])
        above, answers = made - made.mean(dim=1, keepdim=True), made.argmax(dim=1)
        others = [context.others(target) for target in range(context.classes)]
        return (
            [float(above[own, target].mean()) for target, own in enumerate(others)],
            [float((answers[own] == target).float().mean()) for target, own in enumerate(others)],
        )

    def _train(
        self,
        model: nn.Module,
        head: nn.Linear,
        trigger: Trigger,
        batches: Batches,
        draws: torch.Generator,
    ) -> None:
        options = self.inversion
        if self.objective == "defense":
            mask = benign_mask(model, head, batches, options)
            invert(model, head, trigger, mask, batches, options)
            return
        if self.objective == "published":
            mask = _mask_from_random(model, head, batches, options, draws)
            loss = _published(model, head, trigger, mask)
        else:
            loss = _margin(model, trigger)
        optimizer = torch.optim.Adam(trigger.parameters(), options.lr)
        for images, labels in itertools.islice(itertools.cycle(batches), options.steps):
            optimizer.zero_grad(set_to_none=True)
            loss(images, labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def _mask_from_random(
    model: nn.Module,
    head: nn.Linear,
    batches: Batches,
    options: InversionByFeatures,
    draws: torch.Generator,
) -> Tensor:
    """Return a mask (d,) as ``benign_mask`` does, with start and loss of the authors' code."""
    raw = torch.randn(head.in_features, generator=draws).requires_grad_()
    optimizer = torch.optim.Adam([raw], options.mask_lr)
    with torch.no_grad():
        pairs = [(head_inputs(model, head, images), labels) for images, labels in batches]
    for h, labels in itertools.islice(itertools.cycle(pairs), options.mask_steps):
        mask = raw.sigmoid()
        kept, others = head(mask * h), head((1 - mask) * h)
        optimizer.zero_grad(set_to_none=True)
        value = cross_entropy(kept, labels) - cross_entropy(others, labels)
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return raw.detach().sigmoid()


def _published(model: nn.Module, head: nn.Linear, trigger: Trigger, mask: Tensor) -> Loss:
    def loss(images: Tensor, _: Tensor) -> Tensor:
        with torch.no_grad():
            clean = head_inputs(model, head, images)
        gap = head_inputs(model, head, trigger(images)) - clean
        kept, others = (mask * gap).square(), ((1 - mask) * gap).square()
        return (_KEPT * kept - others).sum(dim=1).mean()

    return loss


def _margin(model: nn.Module, trigger: Trigger) -> Loss:
    def loss(images: Tensor, labels: Tensor) -> Tensor:
        scores = class_scores(model, trigger(images))
        own = scores.gather(1, labels[:, None])[:, 0]
        rest = scores.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
        return (own - rest).clamp_min(_ENOUGH).mean()

    return loss


_SHORT = InversionByFeatures(steps=100, lr=3e-3, bound=0.1)
VARIANTS: Mapping[str, FeatureScan] = {
    "BTI-DBF with equal weights": FeatureScan("defense", InversionByFeatures(kept=1.0)),
    "BTI-DBF as the authors' code has it": FeatureScan("published", _SHORT),
    "no mask, RMS 0.1": FeatureScan("margin", _SHORT),
    "no mask, RMS 0.05": FeatureScan("margin", replace(_SHORT, bound=0.05)),
}
TIMED = ("BTI-DBF as the authors' code has it", "no mask, RMS 0.1")  # among a hundred classes
KNOWN = ("head", "shift", "patch")


@dataclass(frozen=True)
class TryJob:
    """The numbers per class of a variant, or of a detector of the package, on one model.

    Attributes:
        source: the job that trained the model.
        detector: the variant, or the name of a detector.
    """

    source: AttackJob | CleanJob
    detector: FeatureScan | str
    kind: ClassVar[str] = "FeatureMaskTry"

    @property
    def name(self) -> str:
        """Name for a file."""
        own = self.detector if isinstance(self.detector, str) else self.detector.objective
        return f"{self.source.name}-features-{own}"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Run the detector on the defender's samples."""
        spec = self.source.spec
        splits = spec.splits(run_dir.data_dir)
        model = trained_model(self.source, splits, run_dir.folder)
        return {"seed": spec.seed, **_measured(self.detector, model, splits.clean, spec.seed)}


@dataclass(frozen=True)
class ScanCostJob:
    """The seconds of a variant on a model of random weights.

    Attributes:
        shape: of the model and its images.
        detector: the variant.
    """

    shape: Shape
    detector: FeatureScan
    kind: ClassVar[str] = "FeatureMaskCost"

    @property
    def name(self) -> str:
        """Name for a file."""
        return f"cost-{self.shape.classes}-features-{self.detector.objective}"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Run the variant on random images."""
        model, data = random_model(self.shape)
        found = _measured(self.detector, model, data, 0)
        return {"cpu_seconds": found["cpu_seconds"]}


def _measured(detector: FeatureScan | str, model: nn.Module, data: ImageData, seed: int) -> Row:
    """Return the numbers per class and the CPU seconds; an inspection also measures accuracy."""
    started = time.process_time()
    row: Row = {}
    if isinstance(detector, str):
        options = InspectOptions(detectors=(detector,))
        found = inspect_model(model, data, options=options, seed=seed, progress=False)
        row["statistics"] = list(found.results[0].statistics)
    else:
        with open_context(model, data, torch.device("cpu"), seed) as context:
            row["statistics"], row["shares"] = detector(context)
    spread = DETECTORS.find(detector)().spread if isinstance(detector, str) else 0.0
    value, named = outlier_score(row["statistics"], spread)
    assert value is not None
    row |= {"value": min(value, _LARGEST), "named": named}
    return {**row, "cpu_seconds": time.process_time() - started}


def sources() -> Iterator[tuple[str, AttackJob | CleanJob]]:
    """Yield (attack, job) of the development models, clean ones first."""
    preset = ATTACK_PRESETS["digits"]
    for seed in CLEAN_SEEDS:
        yield CLEAN, clean_job_of(preset.spec(seed, None, None))
    for attack, _ in preset.attacks:
        for seed in SEEDS:
            yield attack, AttackJob(preset.spec(seed, attack, None))


def area_by_class(
    backdoored: Sequence[Sequence[float]], clean: Sequence[Sequence[float]]
) -> tuple[float, list[int]]:
    """Return the AUC of scores by class, and the class that each backdoored model's score is of.

    A pair of a backdoored and a clean model is compared by their scores among the clean models
    without that one (``per_class_scores``), so that both have the same models beside them.

    Args:
        backdoored: numbers per class of each backdoored model.
        clean: of each clean model, two or more.

    Example:
        >>> clean = [[0.0, 5.0 + k % 3, 1.0 - k % 2] for k in range(8)]
        >>> area_by_class([[0.0, 6.0, 9.0]], clean)
        (1.0, [2])
    """
    wins = []
    for at, one in enumerate(clean):
        rest = [*clean[:at], *clean[at + 1 :]]
        own, *theirs = (
            min(float(per_class_scores([each, *rest])[0][0]), _LARGEST)
            for each in (one, *backdoored)
        )
        wins.append(auc(theirs, [own]))
    named = [int(per_class_scores([each, *clean])[1][0]) for each in backdoored]
    return fmean(wins), named


def areas(rows: Sequence[Row]) -> Iterator[Row]:
    """Yield per variant and attack the AUC by class, by score, and how often the target is named.

    Args:
        rows: of one variant.
    """
    clean = [row for row in rows if row["attack"] == CLEAN]
    backdoored = [row for row in rows if row["attack"] != CLEAN]
    for attack in (EVERY, *dict.fromkeys(row["attack"] for row in backdoored)):
        own = [row for row in backdoored if attack in (EVERY, row["attack"])]
        by_class, named = area_by_class(*([r["statistics"] for r in part] for part in (own, clean)))
        yield {
            "kind": "area",
            "variant": rows[0]["variant"],
            "attack": attack,
            "models": len(own),
            "by_class": by_class,
            "by_score": auc([r["value"] for r in own], [r["value"] for r in clean]),
            "named_by_class": sum(n == r["target"] for n, r in zip(named, own, strict=True)),
            "named_by_score": sum(r["named"] == r["target"] for r in own),
            "cpu_seconds": median(r["cpu_seconds"] for r in own),
        }


def feature_mask_table(results: Results) -> str:
    """Return one line per variant: areas by class and by score, targets named, cost."""
    found = [row for row in results.rows if row["kind"] == "area"]
    costs = {r["variant"]: r["cpu_seconds"] for r in results.rows if r["kind"] == "cost"}
    attacks = list(dict.fromkeys(row["attack"] for row in found))
    lines = []
    for variant in dict.fromkeys(row["variant"] for row in found):
        own = {row["attack"]: row for row in found if row["variant"] == variant}
        every = own[EVERY]
        lines.append(
            [
                variant,
                *(fixed(own[attack]["by_class"], 2) for attack in attacks),
                fixed(every["by_score"], 2),
                f"{every['named_by_class']} of {every['models']}",
                fixed(every["cpu_seconds"]),
                fixed(costs.get(variant), 0),
            ]
        )
    head = ["", *attacks, "by score", "named", "CPU s", "CPU s, 100 classes"]
    return to_markdown(text_table(head, lines))


def feature_mask(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/inspect"),
    minutes: Annotated[
        float | None, typer.Option(help="Start no job after so many; write what there is.")
    ] = None,
) -> None:
    """Run the jobs that are not finished and write ``feature-mask-cpu.json``."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    rows: list[Row] = []
    missing = 0
    tried: dict[str, FeatureScan | str] = {**{name: name for name in KNOWN}, **VARIANTS}
    with start_workers(out, 1) as pool:
        folder = pool.run_dir.folder

        def finished(job: Job) -> Row | None:
            run_jobs([job], pool.engine, folder, title=job.name, deadline=deadline)
            return finished_row(job, folder)

        for variant, detector in tried.items():
            mine = []
            for attack, source in sources():
                for training in (clean_job_of(source.spec), source):
                    trained = finished(training)
                row = None if trained is None else finished(TryJob(source, detector))
                if trained is None or row is None:
                    missing += 1
                    continue
                target = trained.get("target")
                told = {"kind": "try", "variant": variant, "attack": attack, "target": target}
                mine.append({**told, **row})
            if len(mine) == len(list(sources())):
                rows += areas(mine)
            rows += mine
        for variant in TIMED:
            row = finished(ScanCostJob(SHAPES[-1], VARIANTS[variant]))
            missing += row is None
            if row is not None:
                every = replace(SHAPES[-1], searched=SHAPES[-1].classes)
                rows.append({"kind": "cost", "variant": variant, **row, "model": every.name})
    if missing and minutes is None:
        raise SystemExit(f"{missing} jobs are missing")
    settings = {"missing": missing, "variants": {n: asdict(d) for n, d in VARIANTS.items()}}
    save("feature-mask-cpu", "feature-mask", settings, rows)
