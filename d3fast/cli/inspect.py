# SPDX-License-Identifier: Apache-2.0
"""``d3fast inspect``: parse options, run the inspection, print it and write inspect.json."""

from dataclasses import dataclass, replace
from typing import Annotated

import typer

from d3fast.audit import InspectOptions
from d3fast.audit.calibration import read_calibration
from d3fast.audit.check import inspect_audit, inspection_document
from d3fast.audit.report.inspection import print_inspection
from d3fast.audit.resolve import INSPECTION
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.exit_codes import FAIL_ON, parse_fail_on
from d3fast.cli.output import Output
from d3fast.io.files import written_together


@dataclass(frozen=True)
class InspectionOptions:
    """Options of an inspection; see ``InspectOptions``."""

    detectors: Annotated[
        str | None,
        typer.Option(help="Detectors to run, comma-separated; also package.module:Name."),
    ] = None
    signs: options.Deprecated = None
    rate: Annotated[
        float,
        typer.Option(help="False-alarm rate: of all detectors if calibrated, else of each one."),
    ] = InspectOptions.rate
    steps: Annotated[int, typer.Option(min=1, help="Steps of each trigger inversion.")] = (
        InspectOptions().inversion.steps
    )
    samples: Annotated[int, typer.Option(min=1, help="Largest number of clean samples used.")] = (
        InspectOptions.samples
    )

    def chosen(self) -> InspectOptions:
        """Return the options of ``inspect_model``."""
        given = options.renamed("--signs", "--detectors", self.signs, self.detectors)
        names = None if given is None else tuple(name.strip() for name in given.split(","))
        chosen = InspectOptions(detectors=names, rate=self.rate, samples=self.samples)
        return replace(chosen, inversion=replace(chosen.inversion, steps=self.steps))


def inspect(
    model: options.Model,
    data: options.Clean,
    suspect: options.SuspectOptions,
    reading: options.SampleOptions,
    inspection: InspectionOptions,
    config: ConfigFile,
    output: Output,
    calibration: options.CalibrationFile = None,
    out: options.Out = None,
    fail_on: options.FailOn = FAIL_ON,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Look for a backdoor in a model: detectors that need clean samples and no trigger.

    Exit code 1 if a detector flags the model.
    """
    chosen = inspection.chosen()
    fails = parse_fail_on(fail_on)
    clean = None if calibration is None else read_calibration(calibration)
    audit = reading.open(suspect.request(model), data, output, device=device, seed=seed)
    folder = options.audit_folder(out, audit)
    found = inspect_audit(audit, chosen, calibration=clean, progress=output.bars)
    with written_together(folder) as place:
        inspection_document(audit, found, chosen).write(place / INSPECTION)
    print_inspection(found, output.console)
    output.say(f"Written to {folder / INSPECTION}.")
    output.document(folder / INSPECTION)
    options.leave(fails, signs=found.verdict.suspicious)
