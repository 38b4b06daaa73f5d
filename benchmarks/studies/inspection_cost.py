# SPDX-License-Identifier: Apache-2.0
"""What an inspection costs: CPU seconds of every detector, for few and for many classes.

The weights are random: the cost depends on the number of classes, the size of the images and the
number of steps. An inversion may stop early, and so cost less than its bound.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import typer

from benchmarks.studies.harness import save
from d3fast.audit import InspectOptions, inspect_model
from d3fast.data import ImageData
from d3fast.models import make_model
from d3fast.results.format import fixed
from d3fast.results.jobs import Row
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown
from d3fast.runtime.seeding import generator, global_seed

_SAMPLES = 1000


@dataclass(frozen=True)
class Shape:
    """A model and its images.

    Attributes:
        model: name of the architecture.
        classes: number of classes.
        image: (C, H, W).
    """

    model: str
    classes: int
    image: tuple[int, int, int]

    @property
    def name(self) -> str:
        """Label of a line."""
        return f"{self.model}, {self.classes} classes, {'x'.join(map(str, self.image))}"


SHAPES = (
    Shape("preact_resnet_narrow", 10, (1, 28, 28)),
    Shape("preact_resnet_narrow", 10, (3, 32, 32)),
    Shape("preact_resnet_narrow", 100, (3, 64, 64)),
)


def timings(shape: Shape, detectors: tuple[str, ...]) -> Iterator[Row]:
    """Yield the seconds of an inspection by each detector alone.

    Args:
        shape: of the model and its images.
        detectors: names of the detectors.
    """
    draws = generator(0, "images")
    images = torch.rand((_SAMPLES, *shape.image), generator=draws)
    labels = torch.arange(_SAMPLES) % shape.classes
    data = ImageData(images, labels, tuple(map(str, range(shape.classes))))
    with global_seed(0):
        model = make_model(shape.model, shape.classes, shape.image[0]).eval()
    for name in detectors:
        chosen = InspectOptions(detectors=(name,))
        started, busy = time.perf_counter(), time.process_time()
        inspect_model(model, data, options=chosen, progress=False)
        yield {
            "kind": "cost",
            "model": shape.name,
            "detector": name,
            "parameters": sum(param.numel() for param in model.parameters()),
            "classes": shape.classes,
            "image": list(shape.image),
            "samples": _SAMPLES,
            "threads": torch.get_num_threads(),
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - busy,
        }


def inspection_cost_table(results: Results) -> str:
    """Return one line per model: the CPU seconds of every detector, and of all of them."""
    rows = [row for row in results.rows if row["kind"] == "cost"]
    names = list(dict.fromkeys(row["detector"] for row in rows))
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = [row["cpu_seconds"] for row in rows if row["model"] == model]
        lines.append([model, *(fixed(seconds, 0) for seconds in (*own, sum(own)))])
    return to_markdown(text_table(["CPU seconds, one thread", *names, "all"], lines))


def inspection_cost(
    detectors: Annotated[str, typer.Option(help="Comma-separated.")] = "patch,head,shift,margin",
) -> None:
    """Time inspections on one thread and write ``inspect-cost-cpu.json``."""
    torch.set_num_threads(1)
    names = tuple(detectors.split(","))
    rows = [row for shape in SHAPES for row in timings(shape, names)]
    save("inspect-cost-cpu", "inspection-cost", {"detectors": names}, rows)
