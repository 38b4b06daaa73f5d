# SPDX-License-Identifier: Apache-2.0
"""What an inspection costs: CPU seconds of every detector, for few and for many classes.

The weights are random: the cost depends on the number of classes, the size of the images and the
number of steps. An inversion may stop early, and so cost less than its bound. Of 100 classes a few
are searched, and what this takes is multiplied. ``head`` searches nothing: its seconds are those of
every inspection, the accuracy and a check of the scores.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
import typer
from torch import nn

from benchmarks.studies.harness import save, start_workers
from d3fast.audit import InspectOptions, inspect_model
from d3fast.audit.detectors.registry import DEFAULT_DETECTORS
from d3fast.data import ImageData
from d3fast.models import make_model
from d3fast.results.format import fixed
from d3fast.results.jobs import Row, RunDir
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown
from d3fast.runtime.seeding import generator, global_seed

_SAMPLES = 1000
_DETECTORS = (*DEFAULT_DETECTORS, "wave")  # those of a calibration


@dataclass(frozen=True)
class Shape:
    """A model and its images.

    Attributes:
        model: name of the architecture.
        classes: number of classes.
        image: (C, H, W).
        searched: number of classes that are searched.
    """

    model: str
    classes: int
    image: tuple[int, int, int]
    searched: int = 10

    @property
    def name(self) -> str:
        """Label of a line."""
        size = "x".join(map(str, self.image))
        part = "" if self.searched == self.classes else f", {self.searched} searched"
        return f"{self.model}, {self.classes} classes{part}, {size}"


SHAPES = (
    Shape("preact_resnet_narrow", 10, (1, 28, 28)),
    Shape("preact_resnet_narrow", 10, (3, 32, 32)),
    Shape("preact_resnet_narrow", 100, (3, 64, 64), searched=4),
)


def random_model(shape: Shape) -> tuple[nn.Module, ImageData]:
    """Return a model of random weights, in eval mode, and random images of all classes."""
    images = torch.rand((_SAMPLES, *shape.image), generator=generator(0, "images"))
    labels = torch.arange(_SAMPLES) % shape.classes
    with global_seed(0):
        model = make_model(shape.model, shape.classes, shape.image[0]).eval()
    return model, ImageData(images, labels, tuple(map(str, range(shape.classes))))


@dataclass(frozen=True)
class CostJob:
    """The seconds of an inspection by one detector.

    Attributes:
        shape: of the model and its images.
        detector: name of the detector.
    """

    shape: Shape
    detector: str
    kind: ClassVar[str] = "InspectionCost"

    @property
    def name(self) -> str:
        """Name of the job, fit for a file name."""
        return f"cost-{self.shape.model}-{self.shape.classes}-{self.detector.replace(':', '-')}"

    def run(self, run_dir: RunDir, progress: bool) -> Row:
        """Inspect a model of random weights with random images."""
        shape = self.shape
        model, data = random_model(shape)
        chosen = InspectOptions(detectors=(self.detector,), classes=shape.searched)
        started, busy = time.perf_counter(), time.process_time()
        inspect_model(model, data, options=chosen, device=run_dir.device, progress=progress)
        return {
            "kind": "cost",
            "model": shape.name,
            "detector": self.detector,
            "parameters": sum(param.numel() for param in model.parameters()),
            "classes": shape.classes,
            "searched": shape.searched,
            "image": list(shape.image),
            "samples": _SAMPLES,
            "threads": torch.get_num_threads(),
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - busy,
        }


def inspection_cost_table(results: Results) -> str:
    """Return one line per model: CPU seconds of every detector and of all, for all classes."""
    rows = [row for row in results.rows if row["kind"] == "cost"]
    names = list(dict.fromkeys(row["detector"] for row in rows))
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = {row["detector"]: row for row in rows if row["model"] == model}
        always = own["head"]["cpu_seconds"]
        taken = [
            always
            if name == "head"
            else (row["cpu_seconds"] - always) * row["classes"] / row["searched"]
            for name, row in own.items()
        ]
        lines.append([model, *(fixed(seconds, 0) for seconds in (*taken, sum(taken)))])
    return to_markdown(text_table(["CPU seconds, one thread", *names, "all"], lines))


def inspection_cost(
    detectors: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(_DETECTORS),
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/inspection-cost"),
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
) -> None:
    """Time every detector by itself, on one thread, and write ``inspect-cost-cpu.json``."""
    names = tuple(detectors.split(","))
    jobs = [CostJob(shape, name) for shape in SHAPES for name in names]
    with start_workers(out, workers) as pool:
        rows = pool.run(jobs, title="inspections")
    save("inspect-cost-cpu", f"inspection-cost --detectors {detectors}", {"detectors": names}, rows)
