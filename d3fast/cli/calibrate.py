# SPDX-License-Identifier: Apache-2.0
"""``d3fast calibrate``: parse options, train and score clean models, write their scores."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from d3fast.audit.calibrate import (
    FIRST_SEED,
    CalibrationOptions,
    calibration_input,
    run_calibration,
)
from d3fast.audit.calibration import read_calibration
from d3fast.audit.inspect import SHORT, InspectOptions
from d3fast.audit.report.calibration import print_calibration
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.output import Output
from d3fast.hub import Request, Suspect, resolve
from d3fast.hub.factory import is_factory, unfilled_suspect
from d3fast.io.files import make_folder
from d3fast.results.store import Results
from d3fast.runtime.processes import parse_devices

_RUNS = Path("runs/calibration")


def _resolved(request: Request) -> Suspect:
    """Return the model; the weights of a name or a factory may be left out."""
    bare = request.checkpoint is None and is_factory(request.model)
    return unfilled_suspect(request) if bare else resolve(request)


def calibrate(
    model: options.Model,
    data: options.Clean,
    suspect: options.SuspectOptions,
    reading: options.SampleOptions,
    config: ConfigFile,
    output: Output,
    models: Annotated[
        int, typer.Option(min=1, help="Clean models; n of them resolve a rate of 1 / (n + 1).")
    ] = CalibrationOptions.models,
    backdoored: Annotated[
        int, typer.Option(min=0, help="Backdoored models besides, to measure the detection rate.")
    ] = CalibrationOptions.backdoored,
    train: Annotated[
        int | None,
        typer.Option(min=1, help="Samples to train on; three quarters by default."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of a training.")] = (
        CalibrationOptions.epochs
    ),
    detectors: Annotated[
        str | None, typer.Option(help="Detectors to run, comma-separated; all by default.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each trigger inversion.")] = (
        SHORT.steps
    ),
    samples: Annotated[int, typer.Option(min=1, help="Largest number of samples inspected.")] = (
        InspectOptions.samples
    ),
    out: Annotated[
        Path | None,
        typer.Option(
            help="File of the scores. Finished models lie in a folder of the same name without "
            "its ending: a second run continues there."
        ),
    ] = None,
    devices: options.Devices = "auto",
    first_seed: options.FirstSeed = FIRST_SEED,
) -> None:
    """Train clean models of a model's architecture and keep their scores, for --calibration.

    Weights of the model are not used; a name or a factory needs none.
    """
    names = None if detectors is None else tuple(name.strip() for name in detectors.split(","))
    inspection = InspectOptions(
        inversion=replace(SHORT, steps=steps), detectors=names, samples=samples
    )
    chosen = CalibrationOptions(
        models=models,
        backdoored=backdoored,
        train=train,
        epochs=epochs,
        inspection=inspection,
        first_seed=first_seed,
    )
    audit = reading.read(suspect.request(model), data, output, device="cpu", resolver=_resolved)
    path = _RUNS / f"{audit.suspect.name}.json" if out is None else out
    given = calibration_input(audit, make_folder(path.with_suffix("")))
    rows = run_calibration(
        given,
        chosen,
        name=audit.spec,
        data=Path(data).name,
        devices=parse_devices(devices),
        progress=output.bars,
    )
    command = (
        f"d3fast calibrate --model {audit.spec} --models {models} --backdoored {backdoored} "
        f"--epochs {epochs} --steps {steps} --samples {samples} --first-seed {first_seed}"
    )
    command += "" if train is None else f" --train {train}"
    command += "" if detectors is None else f" --detectors {detectors}"
    Results(command, {"options": asdict(chosen)}, rows).write(path)
    print_calibration(read_calibration(path), output.console)
    output.say(f"Written to {path}. Use it: d3fast check MODEL --data ... --calibration {path}")
    output.document(path)
