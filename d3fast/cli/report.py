# SPDX-License-Identifier: Apache-2.0
"""``d3fast report``: write the page of an audit folder."""

from pathlib import Path
from typing import Annotated

import typer

from d3fast.audit.places import newest_audit
from d3fast.audit.report.folder import read_audit
from d3fast.audit.report.page import report_document, write_audit_page
from d3fast.audit.report.verdict import backdoored
from d3fast.audit.resolve import PAGE
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.exit_codes import FAIL_ON, parse_fail_on
from d3fast.cli.output import Output


def report(
    config: ConfigFile,
    output: Output,
    folder: Annotated[
        Path | None, typer.Argument(help="Audit folder; the newest one in runs by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help=f"File of the page; {PAGE} in the folder by default.")
    ] = None,
    fail_on: options.FailOn = FAIL_ON,
) -> None:
    """Write one HTML page about an audit, for readers without background.

    Reads inspect.json, pilot.json, card.json and spectrum.json, as far as they exist. The exit code
    is about the repaired model where there is one.
    """
    fails = parse_fail_on(fail_on)
    if folder is None:
        folder, count = newest_audit()
        output.notes([f"{folder} is the {'newest' if count > 1 else 'only'} audit in runs"])
    page = folder / PAGE if out is None else out
    output.say(*write_audit_page(folder, page), f"Written to {page}.")
    audit = read_audit(folder)
    output.results(report_document(audit))
    options.leave(
        fails,
        signs=backdoored(audit.after or audit.before),
        missed=audit.card is not None and not audit.card.repair.within_limit,
    )
