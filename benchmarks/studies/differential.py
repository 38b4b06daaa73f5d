# SPDX-License-Identifier: Apache-2.0
"""Variants of the detector ``differential``, tried on development models.

The models are of seeds from 100, which no table of rates counts: digits under the two attacks that
the other detectors find least, SIG and BadNets with few poisoned images, and Fashion-MNIST under
attacks with triggers all over the image.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import typer

from benchmarks.studies.harness import save, start_workers
from benchmarks.studies.inspection import trained_model
from benchmarks.studies.inspection_plans import SPARSE
from benchmarks.studies.inspection_rates import CLEAN
from d3fast.audit.detectors.context import open_context
from d3fast.audit.detectors.differential import DifferentialShift
from d3fast.audit.detectors.scores import outlier_score
from d3fast.audit.inspect import InspectOptions
from d3fast.benchmark.attack_jobs import ATTACK_PRESETS, AttackJob, CleanJob, clean_job_of
from d3fast.results.engine import run_jobs
from d3fast.results.jobs import Job, Row, RunDir, finished_row

VARIANTS: Mapping[str, DifferentialShift] = {
    "default": DifferentialShift(),
    "size 0.1": DifferentialShift(size=0.1),
    "searched on the suspect alone": DifferentialShift(bound=0.0),
    "two repairs": DifferentialShift(repairs=2),
}
SPARSELY = "badnets, 2 % poisoned"
MODELS: Mapping[str, Mapping[str, Sequence[int]]] = {
    "fashion-mnist": {
        CLEAN: (100, 102),
        "ssba": (100, 102),
        "wanet": (100, 102),
        "low-frequency": (100, 102),
        "input-aware": (100, 102),
        "sig": (100, 102),
    },
    "digits": {
        CLEAN: tuple(range(100, 106)),
        "sig": tuple(range(100, 104)),
        SPARSELY: tuple(range(100, 104)),
    },
}
_PRESETS = {"digits": "digits", "fashion-mnist": "cpu"}


@dataclass(frozen=True)
class TryJob:
    """The statistics of one variant on one model.

    Attributes:
        source: the job that trained the model.
        detector: the variant.
        samples: largest number of clean samples.
    """

    source: AttackJob | CleanJob
    detector: DifferentialShift
    samples: int = InspectOptions.samples
    kind: ClassVar[str] = "TryCell"

    @property
    def name(self) -> str:
        """Name for a file."""
        return f"{self.source.name}-differential"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Run the detector on the defender's samples."""
        spec = self.source.spec
        splits = spec.splits(run_dir.data_dir)
        model = trained_model(self.source, splits, run_dir.folder)
        data = splits.clean.subset(torch.arange(min(self.samples, len(splits.clean))))
        started = time.perf_counter(), time.process_time()
        with open_context(model, data, torch.device("cpu"), spec.seed) as context:
            statistics = list(self.detector(context))
        return {
            "seed": spec.seed,
            "statistics": statistics,
            "seconds": time.perf_counter() - started[0],
            "cpu_seconds": time.process_time() - started[1],
        }


def source_of(data: str, attack: str, seed: int) -> AttackJob | CleanJob:
    """Return the job that trains a model."""
    preset = ATTACK_PRESETS[_PRESETS[data]]
    if attack == CLEAN:
        return clean_job_of(preset.spec(seed, None, None))
    if attack == SPARSELY:
        return AttackJob(replace(preset.spec(seed, "badnets", None), ratio=SPARSE))
    return AttackJob(preset.spec(seed, attack, None))


def sources(data: str) -> Iterator[tuple[str, AttackJob | CleanJob]]:
    """Yield (attack, job) of the models of a data set, clean ones first."""
    for attack, seeds in MODELS[data].items():
        for seed in seeds:
            yield attack, source_of(data, attack, seed)


def differential(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/inspect"),
    minutes: Annotated[
        float | None, typer.Option(help="Start no job after so many; write what there is.")
    ] = None,
) -> None:
    """Run the jobs that are not finished and write ``differential-cpu.json``."""
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    rows: list[Row] = []
    missing = 0
    with start_workers(out, 1) as pool:
        folder = pool.run_dir.folder
        for variant, detector in VARIANTS.items():
            for data in MODELS:
                for attack, source in sources(data):
                    trainings = [clean_job_of(source.spec), source]
                    jobs: list[Job] = [*trainings, TryJob(source, detector)]
                    for job in jobs:
                        run_jobs([job], pool.engine, folder, title=job.name, deadline=deadline)
                    trained, row = finished_row(source, folder), finished_row(jobs[-1], folder)
                    if trained is None or row is None:
                        missing += 1
                        continue
                    value, named = outlier_score(row["statistics"], detector.spread)
                    row = {**row, "value": value, "named": named}
                    told = {"kind": "try", "set": data, "variant": variant, "attack": attack}
                    rows.append({**told, "target": trained.get("target"), **row})
    if missing and minutes is None:
        raise SystemExit(f"{missing} jobs are missing")
    settings = {"missing": missing, "variants": {n: asdict(d) for n, d in VARIANTS.items()}}
    save("differential-cpu", "differential", settings, rows)
