# SPDX-License-Identifier: Apache-2.0
"""Curvature and distance of repairs: suspects of the cpu benchmark, repaired and measured.

The suspects under BadNets and Blended are repaired by plain fine-tuning, by fine-tuning at D3's
learning rate and by D3, as in the benchmark, and measured by ``d3fast.spectrum.curvature_report``.
A run directory of the benchmark already holds the suspects.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import typer
from torch import nn

from benchmarks.studies.harness import save, start_workers
from d3fast.benchmark.attack_jobs import AttackJob
from d3fast.benchmark.plan import BenchmarkPreset, plan_jobs, replace_suspects, select_defenses
from d3fast.benchmark.presets import BENCHMARK_PRESETS
from d3fast.benchmark.repair_jobs import RepairJob, load_suspect
from d3fast.data import stratified_split
from d3fast.results.jobs import Row, RunDir
from d3fast.runtime import environment
from d3fast.runtime.seeding import generator
from d3fast.spectrum import CurvatureReportConfig, curvature_report

ATTACKS = (("badnets", None), ("blended", None))
REPAIRS = ("fine-tuning", "fine-tuning (D3's lr)", "d3")
TEST_IMAGES = 500
CONFIG = CurvatureReportConfig(k=5, probes=4, steps=20)


@dataclass(frozen=True)
class CurvatureJob:
    """Curvature report of a suspect and its repairs.

    Attributes:
        suspect: the job that trained the suspect; it must have been run.
        repairs: the jobs of its repairs, which are repeated to have the models.
        labels: names of the repairs in the table.
        config: options of the report.
        test_images: number of test images.
    """

    suspect: AttackJob
    repairs: tuple[RepairJob, ...]
    labels: tuple[str, ...]
    config: CurvatureReportConfig
    test_images: int
    kind: ClassVar[str] = "PortraitCell"

    @property
    def name(self) -> str:
        """Fit for a file name."""
        return f"{self.suspect.name}-portrait"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Repair and measure."""
        spec = self.suspect.spec
        splits = spec.splits(run_dir.data_dir)
        suspect, attack = load_suspect(self.suspect, splits, run_dir.folder)
        models: dict[str, nn.Module] = {"suspect": suspect}
        for label, job in zip(self.labels, self.repairs, strict=True):
            shaped = suspect.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            models[label] = job.repair(shaped, splits.clean, torch.device("cpu"), progress).model
        draws = generator(spec.seed, "portrait")
        (shown,) = stratified_split(splits.test.labels, [self.test_images], draws)
        test = splits.test.subset(shown)
        rows = curvature_report(models, test, attack, config=self.config, progress=progress)
        return {"attack": spec.attack, "seed": spec.seed, "rows": rows}


def why_jobs(preset: BenchmarkPreset, seeds: list[int]) -> tuple[list[Any], list[CurvatureJob]]:
    """Return the jobs of clean and backdoored models, and the reports that need them."""
    # The first suspects alone: the second entry is not poisoned.
    poisoned = replace(preset, suspects=preset.suspects[:1], relearning=(), reactivation=())
    chosen = select_defenses(replace_suspects(poisoned, attacks=ATTACKS), REPAIRS)
    whole = plan_jobs(chosen, seeds)
    reports = []
    for suspect in (planned.job for planned in whole.suspects):
        own = [planned for planned in whole.repairs if planned.suspect == suspect]
        reports.append(
            CurvatureJob(
                suspect,
                tuple(planned.job for planned in own),
                tuple(planned.labels["defense"] for planned in own),
                CONFIG,
                TEST_IMAGES,
            )
        )
    return [planned.job for planned in (*whole.clean_models, *whole.suspects)], reports


def why(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/benchmark"),
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = environment.cores(),
) -> None:
    """Run the jobs that are not finished and write ``why-cpu.json``."""
    suspects, reports = why_jobs(BENCHMARK_PRESETS["cpu"], list(range(seeds)))
    with start_workers(out, workers) as pool:
        pool.run(suspects, title="suspects")
        results = pool.run(reports, title="curvature reports")
    rows = [
        {"attack": result["attack"], "seed": result["seed"], **row}
        for result in results
        for row in result["rows"]
    ]
    save("why-cpu", f"why --seeds {seeds}", {"test_images": TEST_IMAGES, **asdict(CONFIG)}, rows)
