# SPDX-License-Identifier: Apache-2.0
"""What curvature and distance say of repairs: ``python -m benchmarks.why --out runs/benchmark``.

The suspects of the cpu benchmark under BadNets and Blended, repaired by plain fine-tuning, by
fine-tuning at D3's step and by D3, all as the benchmark repairs them, and measured by
``d3fast.spectrum.curvature_report``. A folder in which the benchmark was run has the suspects.
"""

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console
from torch import nn

from d3fast.benchmark.attack_jobs import AttackJob
from d3fast.benchmark.plan import GridPreset, changed_suspects, chosen_repairs, plan
from d3fast.benchmark.presets import PRESETS
from d3fast.benchmark.repair_jobs import RepairJob, read_suspect
from d3fast.data import stratified_split
from d3fast.io.files import make_folder
from d3fast.results.engine import run_jobs
from d3fast.results.jobs import Row, RunDir
from d3fast.results.pool import local_engine
from d3fast.results.store import Results
from d3fast.runtime import environment
from d3fast.runtime.seeding import generator
from d3fast.spectrum import CurvatureReportConfig, curvature_report

RESULTS = Path(__file__).parent / "results"
ATTACKS = (("badnets", None), ("blended", None))
REPAIRS = ("fine-tuning", "fine-tuning (D3's lr)", "d3")
TEST_IMAGES = 500
CONFIG = CurvatureReportConfig(k=5, probes=4, steps=20)


@dataclass(frozen=True)
class PortraitJob:
    """A suspect, its repairs, and all that is measured of them.

    Attributes:
        suspect: the job that made the suspect; it has to be run before.
        repairs: the jobs of its repairs, which are repeated here to have the models.
        labels: their names in the table.
        config: what is measured.
        test_images: on so many.
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
        suspect, attack = read_suspect(self.suspect, splits, run_dir.folder)
        models: dict[str, nn.Module] = {"suspect": suspect}
        for label, job in zip(self.labels, self.repairs, strict=True):
            shaped = suspect.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            models[label] = job.repair(shaped, splits.clean, torch.device("cpu"), progress).model
        draws = generator(spec.seed, "portrait")
        (shown,) = stratified_split(splits.test.labels, [self.test_images], draws)
        test = splits.test.subset(shown)
        rows = curvature_report(models, test, attack, config=self.config, progress=progress)
        return {"attack": spec.attack, "seed": spec.seed, "rows": rows}


def why_jobs(preset: GridPreset, seeds: list[int]) -> tuple[list[Any], list[PortraitJob]]:
    """Twins and suspects, and the portraits that need them."""
    chosen = chosen_repairs(changed_suspects(preset, attacks=ATTACKS), REPAIRS)
    whole = plan(chosen, seeds)
    portraits = []
    for suspect in (planned.job for planned in whole.suspects):
        own = [planned for planned in whole.repairs if planned.suspect == suspect]
        portraits.append(
            PortraitJob(
                suspect,
                tuple(planned.job for planned in own),
                tuple(planned.marks["defense"] for planned in own),
                CONFIG,
                TEST_IMAGES,
            )
        )
    return [planned.job for planned in (*whole.twins, *whole.suspects)], portraits


def main() -> None:
    """Run what is not finished yet, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=environment.cores())
    asked = parser.parse_args()
    torch.set_num_threads(1)
    before, portraits = why_jobs(PRESETS["cpu"], list(range(asked.seeds)))
    run_dir = RunDir(make_folder(asked.out))
    with local_engine(run_dir, ["cpu"] * asked.workers, progress=True) as engine:
        run_jobs(before, engine, run_dir.folder, title="suspects")
        found = run_jobs(portraits, engine, run_dir.folder, title="portraits")
    rows = [
        {"attack": job["attack"], "seed": job["seed"], **row}
        for job in found
        for row in job["rows"]
    ]
    path = RESULTS / "why-cpu.json"
    settings = {"test_images": TEST_IMAGES, **asdict(CONFIG)}
    Results(f"python -m benchmarks.why --seeds {asked.seeds}", settings, rows).write(path)
    Console().print(f"Written to {path}.", highlight=False)


if __name__ == "__main__":
    main()
