# SPDX-License-Identifier: Apache-2.0
"""``d3fast inspect``: parse options, run the inspection, print it and write inspect.json."""

from dataclasses import asdict, replace
from typing import Annotated

import typer
from rich.console import Console

from d3fast.audit import DETECTORS, InspectOptions, inspect_model
from d3fast.audit.report.inspection import print_inspection
from d3fast.audit.resolve import INSPECTION, Audit, open_audit
from d3fast.cli import options
from d3fast.results.store import Results


def _command(audit: Audit, chosen: InspectOptions) -> str:
    return (
        f"d3fast inspect --model {audit.spec} --steps {chosen.inversion.steps} "
        f"--detectors {','.join(chosen.detectors)} --rate {chosen.rate:g} "
        f"--samples {chosen.samples} --seed {audit.seed}"
    )


def inspect(
    checkpoint: options.Checkpoint,
    data: options.Clean,
    model: options.Model = "preact_resnet_narrow",
    out: options.Out = options.AUDIT,
    detectors: Annotated[str, typer.Option(help="Detectors to run, comma-separated.")] = ",".join(
        DETECTORS
    ),
    signs: options.Deprecated = None,
    rate: Annotated[
        float, typer.Option(help="False-alarm rate of one detector; sets its threshold.")
    ] = InspectOptions.rate,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of each trigger inversion.")
    ] = InspectOptions().inversion.steps,
    samples: Annotated[
        int, typer.Option(min=1, help="Largest number of clean samples used.")
    ] = InspectOptions.samples,
    size: options.Size = None,
    classes: options.Classes = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    progress: options.Progress = True,
) -> None:
    """Look for a backdoor in a checkpoint: detectors that need clean samples and no trigger."""
    given = options.renamed("--signs", "--detectors", signs, detectors)
    names = tuple(name.strip() for name in given.split(","))
    chosen = InspectOptions(detectors=names, rate=rate, samples=samples)
    chosen = replace(chosen, inversion=replace(chosen.inversion, steps=steps))
    audit = open_audit(
        model, checkpoint, data, size=size, classes=classes, device=device, seed=seed
    )
    options.limit_threads(audit.model)
    found = inspect_model(audit.model, audit.data, options=chosen, seed=seed, progress=progress)
    folder = options.audit_folder(out)
    rows = found.rows(sha256=audit.sha256)
    settings = {**audit.settings(), "options": asdict(chosen)}
    Results(_command(audit, chosen), settings, rows).write(folder / INSPECTION)
    console = Console()
    print_inspection(found, console)
    console.print(f"Written to {folder / INSPECTION}.", highlight=False, markup=False)
