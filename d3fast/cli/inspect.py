# SPDX-License-Identifier: Apache-2.0
"""``d3fast inspect``: parses, calls, prints."""

from dataclasses import asdict, replace
from typing import Annotated

import typer
from rich.console import Console

from d3fast.audit import DETECTORS, InspectOptions, inspect_model
from d3fast.audit.report.inspection import print_inspection
from d3fast.audit.resolve import INSPECTION, Audit, open_audit
from d3fast.cli import options
from d3fast.io.files import make_folder
from d3fast.results.store import Results


def _command(case: Audit, chosen: InspectOptions) -> str:
    return (
        f"d3fast inspect --model {case.spec} --steps {chosen.inversion.steps} "
        f"--detectors {','.join(chosen.detectors)} --rate {chosen.rate:g} "
        f"--samples {chosen.samples} --seed {case.seed}"
    )


def inspect(
    checkpoint: options.Checkpoint,
    data: options.Clean,
    model: options.Model = "preact_resnet_narrow",
    out: options.Out = options.CASE,
    detectors: Annotated[str, typer.Option(help="Detectors to run, comma-separated.")] = ",".join(
        DETECTORS
    ),
    signs: Annotated[str | None, typer.Option(hidden=True)] = None,
    rate: Annotated[
        float, typer.Option(help="False-alarm rate of one detector; sets its threshold.")
    ] = InspectOptions.rate,
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of each trigger inversion.")
    ] = InspectOptions().inversion.steps,
    samples: Annotated[
        int, typer.Option(min=1, help="Clean samples used, at most.")
    ] = InspectOptions.samples,
    size: options.Size = None,
    classes: options.Classes = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    progress: options.Progress = True,
) -> None:
    """Look for a backdoor in a checkpoint with clean samples alone: detectors and a verdict."""
    given = options.renamed("--signs", "--detectors", signs, detectors)
    names = tuple(name.strip() for name in given.split(","))
    chosen = InspectOptions(detectors=names, rate=rate, samples=samples)
    chosen = replace(chosen, inversion=replace(chosen.inversion, steps=steps))
    case = open_audit(model, checkpoint, data, size=size, classes=classes, device=device, seed=seed)
    options.settle_threads(case.model)
    found = inspect_model(case.model, case.data, options=chosen, seed=seed, progress=progress)
    place = make_folder(out)
    rows = found.rows(sha256=case.sha256)
    settings = {**case.settings(), "options": asdict(chosen)}
    Results(_command(case, chosen), settings, rows).write(place / INSPECTION)
    console = Console()
    print_inspection(found, console)
    console.print(f"Written to {place / INSPECTION}.", highlight=False, markup=False)
