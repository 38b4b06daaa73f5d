# SPDX-License-Identifier: Apache-2.0
"""Rates of the detectors that read weights alone, on digits, and their cost on large shapes.

The models are those of the plan ``digits`` of ``inspection`` under other seeds: those of seeds 0
and 1 were looked at when the detectors were chosen. A scan takes less time than a file needs to be
read, so that this study has no jobs of its own.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from benchmarks.studies.harness import Workers, save, start_workers
from benchmarks.studies.inspection import InspectJob, jobs_of, trained_model
from benchmarks.studies.inspection_plans import PLANS, StudyPlan
from benchmarks.studies.inspection_rates import rates
from d3fast.audit.weights import RATE, scan_weights
from d3fast.results.format import fixed
from d3fast.results.jobs import Row, finished_row
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown

DIGITS = PLANS["digits"].preset
WANTED = (
    StudyPlan(
        DIGITS,
        ("badnets", "blended", "sig", "wanet", "low-frequency"),
        tuple(range(10, 15)),
        tuple(range(10, 30)),
    ),
    StudyPlan(DIGITS, ("input-aware", "ssba"), (10, 11), ()),
)
# Largest score that a JSON file holds.
_MOST = 1e6


def scanned(job: InspectJob, folder: Path) -> Row | None:
    """Return the scan of a trained model; ``None`` for an attack that its floor refused."""
    assert job.source is not None
    row = finished_row(job.source, folder)
    assert row is not None
    if row.get("refused"):
        return None
    model = trained_model(job.source, job.spec.splits(), folder)
    started = time.perf_counter()
    found = scan_weights(model)
    return {
        "kind": "inspected",
        "set": "digits",
        **{key: row.get(key) for key in ("attack", "target", "acc", "asr")},
        "seed": job.spec.seed,
        "signs": {
            result.name: {"value": min(result.value or 0.0, _MOST), "target": result.target}
            for result in found.results
        },
        "seconds": time.perf_counter() - started,
    }


def all_scanned(workers: Workers) -> Iterator[Row]:
    """Yield the scans of all models; those that do not exist are trained."""
    for plan in WANTED:
        clean, backdoored, scans = jobs_of(plan)
        workers.run(clean, title="clean models")
        workers.run(backdoored, title="backdoored models")
        found = (scanned(job, workers.run_dir.folder) for job in scans)
        yield from (row for row in found if row is not None)


def timings() -> Iterator[Row]:
    """Yield the seconds of a scan of large models with random weights."""
    from transformers import (
        ResNetConfig,
        ResNetForImageClassification,
        ViTConfig,
        ViTForImageClassification,
    )

    for name, make, config in (
        ("ResNet-50", ResNetForImageClassification, ResNetConfig(num_labels=1000)),
        ("ViT-B/16", ViTForImageClassification, ViTConfig(num_labels=1000)),
    ):
        model: nn.Module = make(config)
        started, busy = time.perf_counter(), time.process_time()
        scan_weights(model)
        yield {
            "kind": "timing",
            "set": "shapes",
            "model": name,
            "parameters": sum(param.numel() for param in model.parameters()),
            "threads": torch.get_num_threads(),
            "seconds": time.perf_counter() - started,
            "cpu_seconds": time.process_time() - busy,
        }


def seconds_table(results: Results) -> str:
    """Return the seconds of a scan per large model."""
    rows = [row for row in results.rows if row["kind"] == "timing"]
    lines = (
        (row["model"], fixed(row["parameters"] / 1e6), fixed(row["cpu_seconds"])) for row in rows
    )
    return to_markdown(text_table(("", "million weights", "CPU seconds, one thread"), lines))


def weights(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/weights"),
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
) -> None:
    """Train the models that do not exist, scan all and write ``weights-cpu.json``."""
    with start_workers(out, workers) as pool:
        rows = list(all_scanned(pool))
    save("weights-cpu", "weights", {"rate": RATE}, [*rates(rows, RATE), *rows, *timings()])
