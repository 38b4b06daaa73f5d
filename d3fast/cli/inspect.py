# SPDX-License-Identifier: Apache-2.0
"""``d3fast inspect``: parse options, run the inspection, print it and write inspect.json."""

from dataclasses import asdict, replace
from typing import Annotated

import typer
from rich.console import Console

from d3fast.audit import DETECTORS, InspectOptions, inspect_model
from d3fast.audit.report.inspection import print_inspection
from d3fast.audit.resolve import INSPECTION, Audit, images_of, open_audit
from d3fast.cli import options
from d3fast.hub import Columns
from d3fast.results.store import Results


def _command(audit: Audit, chosen: InspectOptions) -> str:
    return (
        f"d3fast inspect --model {audit.spec} --steps {chosen.inversion.steps} "
        f"--detectors {','.join(chosen.for_images())} --rate {chosen.rate:g} "
        f"--samples {chosen.samples} --seed {audit.seed}"
    )


def inspect(
    model: options.Model,
    data: options.Clean,
    checkpoint: options.Checkpoint = None,
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
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_column: options.ImageColumn = None,
    split: options.Split = None,
    classes: options.Classes = None,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    answers: options.Answers = None,
    max_memory: options.MaxMemory = options.MAX_GIB,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    progress: options.Progress = True,
) -> None:
    """Look for a backdoor in a checkpoint: detectors that need clean samples and no trigger."""
    given = options.renamed("--signs", "--detectors", signs, detectors)
    names = tuple(name.strip() for name in given.split(","))
    chosen = InspectOptions(detectors=names, rate=rate, samples=samples)
    chosen = replace(chosen, inversion=replace(chosen.inversion, steps=steps))
    suspect = options.request(model, checkpoint, mean=mean, std=std, size=size, answers=answers)
    audit = open_audit(
        suspect,
        data,
        columns=Columns(text_column, label_column, image_column),
        split=split,
        classes=classes,
        device=device,
        seed=seed,
        max_memory=options.gibibytes(max_memory),
    )
    options.print_notes(audit)
    options.limit_threads(audit.model)
    found = inspect_model(
        audit.model, images_of(audit.data), options=chosen, seed=seed, progress=progress
    )
    folder = options.audit_folder(out)
    rows = found.rows(sha256=audit.sha256)
    settings = {**audit.settings(), "options": asdict(chosen)}
    Results(_command(audit, chosen), settings, rows).write(folder / INSPECTION)
    console = Console()
    print_inspection(found, console)
    console.print(f"Written to {folder / INSPECTION}.", highlight=False, markup=False)
