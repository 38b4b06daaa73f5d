# SPDX-License-Identifier: Apache-2.0
"""``d3fast check``: scan and inspect a model, write its documents and the page; for CI too."""

from d3fast.audit.budget import plan_inspection
from d3fast.audit.check import inspect_audit, inspection_document, scan_document
from d3fast.audit.report.inspection import print_inspection
from d3fast.audit.report.page import write_audit_page
from d3fast.audit.resolve import INSPECTION, PAGE, WEIGHTS
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.exit_codes import FAIL_ON, parse_fail_on
from d3fast.cli.inspect import InspectionOptions
from d3fast.cli.output import Output
from d3fast.io.files import written_together


def check(
    model: options.ModelArgument,
    data: options.Clean,
    suspect: options.SuspectOptions,
    reading: options.SampleOptions,
    inspection: InspectionOptions,
    config: ConfigFile,
    output: Output,
    out: options.Out = None,
    budget_minutes: options.Budget = None,
    fail_on: options.FailOn = FAIL_ON,
    seed: options.Seed = 0,
    device: options.Device = "auto",
) -> None:
    """Check a model for a backdoor with a few clean samples; write a page.

    Exit code 1 if a detector flags the model, 0 if none does.
    """
    chosen = inspection.chosen()
    fails = parse_fail_on(fail_on)
    audit = reading.open(suspect.request(model), data, output, device=device, seed=seed)
    folder = options.audit_folder(out, audit)
    if budget_minutes is not None:
        chosen, cut = plan_inspection(audit, chosen, 60 * budget_minutes)
        output.notes([f"to fit {budget_minutes:g} minutes, {clause}" for clause in cut])
    scan = scan_document(audit)
    found = inspect_audit(audit, chosen, progress=output.bars)
    with written_together(folder) as place:
        inspection_document(audit, found, chosen).write(place / INSPECTION)
        if scan is not None:
            scan.write(place / WEIGHTS)
        said = write_audit_page(folder, place / PAGE, newer=place)
    names = ", ".join([INSPECTION, *([WEIGHTS] if scan is not None else []), PAGE])
    print_inspection(found, output.console)
    output.say(*said, f"Written to {folder}: {names}.")
    output.document(folder / INSPECTION)
    options.leave(fails, signs=found.verdict.suspicious)
