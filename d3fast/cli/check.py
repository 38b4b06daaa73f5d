# SPDX-License-Identifier: Apache-2.0
"""``d3fast check``: scan and inspect a model, write its documents and the page; for CI too."""

from collections.abc import Set
from pathlib import Path

from d3fast.audit.budget import plan_inspection
from d3fast.audit.calibration import Calibration, read_calibration
from d3fast.audit.check import inspect_audit, inspection_document, scan_document
from d3fast.audit.places import check_owner, default_folder
from d3fast.audit.report.inspection import print_inspection
from d3fast.audit.report.page import write_audit_page
from d3fast.audit.report.weights import print_scan
from d3fast.audit.resolve import INSPECTION, PAGE, WEIGHTS
from d3fast.audit.weights import scan_weights
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.exit_codes import FAIL_ON, parse_fail_on
from d3fast.cli.gate import GateOptions
from d3fast.cli.inspect import InspectionOptions
from d3fast.cli.output import Output
from d3fast.hub import Request, resolve
from d3fast.io.files import check_folder, written_together
from d3fast.results.store import Results


def check(
    model: options.ModelArgument,
    suspect: options.SuspectOptions,
    reading: options.SampleOptions,
    inspection: InspectionOptions,
    config: ConfigFile,
    output: Output,
    gate: GateOptions,
    data: options.OptionalClean = None,
    calibration: options.CalibrationFile = None,
    out: options.Out = None,
    budget_minutes: options.Budget = None,
    fail_on: options.FailOn = FAIL_ON,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Check a model for a backdoor with a few clean samples; write a page.

    Without --data only the weights are read: that takes seconds and finds fewer backdoors. Exit
    code 1 if a detector flags the model, 0 if none does.
    """
    chosen = inspection.chosen()
    fails = parse_fail_on(fail_on)
    gate.check()
    clean = None if calibration is None else read_calibration(calibration)
    if data is None:
        _check_weights(suspect.request(model), clean, gate, output, out, fails)
        return
    audit = reading.open(suspect.request(model), data, output, device=device, seed=seed)
    folder = options.audit_folder(out, audit)
    if budget_minutes is not None:
        chosen, cut = plan_inspection(audit, chosen, 60 * budget_minutes)
        output.notes([f"to fit {budget_minutes:g} minutes, {clause}" for clause in cut])
    scan = scan_document(audit, clean)
    found = inspect_audit(audit, chosen, calibration=clean, progress=output.bars)
    with written_together(folder) as place:
        inspection_document(audit, found, chosen).write(place / INSPECTION)
        if scan is not None:
            scan.write(place / WEIGHTS)
        said = write_audit_page(folder, place / PAGE, newer=place)
    names = [INSPECTION, *([WEIGHTS] if scan is not None else []), PAGE]
    names += gate.write(folder, model)
    print_inspection(found, output.console)
    output.say(*said, f"Written to {folder}: {', '.join(names)}.")
    output.document(folder / INSPECTION)
    options.leave(fails, signs=found.verdict.suspicious)


def _check_weights(
    request: Request,
    calibration: Calibration | None,
    gate: GateOptions,
    output: Output,
    out: Path | None,
    fails: Set[str],
) -> None:
    """Look at the weights alone; write weights.json and the page."""
    suspect = resolve(request)
    output.notes(suspect.notes)
    folder = default_folder(suspect.name, suspect.sha256) if out is None else out
    check_owner(check_folder(folder), suspect.sha256)
    found = scan_weights(suspect.model, suspect.classes, calibration=calibration)
    single = len(suspect.files) == 1
    settings = {
        "model": suspect.spec,
        "checkpoint": suspect.files[0].name if single else suspect.name,
        "sha256": suspect.sha256,
        "classes": list(found.classes),
    }
    with written_together(folder) as place:
        rows = found.rows(sha256=suspect.sha256)
        Results(f"d3fast check {suspect.spec}", settings, rows).write(place / WEIGHTS)
        said = write_audit_page(folder, place / PAGE, newer=place)
    written = [WEIGHTS, PAGE, *gate.write(folder, request.model)]
    print_scan(found, output.console)
    output.say(*said, f"Written to {folder}: {', '.join(written)}.")
    output.document(folder / WEIGHTS)
    options.leave(fails, signs=found.verdict.suspicious)
