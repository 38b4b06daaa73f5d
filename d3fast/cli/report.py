# SPDX-License-Identifier: Apache-2.0
"""``d3fast report``: write the page of an audit folder."""

from pathlib import Path
from typing import Annotated

import typer

from d3fast.audit.report.page import write_audit_page
from d3fast.audit.resolve import PAGE
from d3fast.cli.options import AUDIT, existing_audit


def report(
    folder: Annotated[Path, typer.Argument(help="Audit folder.")] = AUDIT,
    out: Annotated[
        Path | None, typer.Option(help=f"File of the page; {PAGE} in the folder by default.")
    ] = None,
) -> None:
    """Write one HTML page about an audit, for readers without background.

    Reads inspect.json, pilot.json, card.json and spectrum.json, as far as they exist.
    """
    folder = existing_audit(folder)
    page = folder / PAGE if out is None else out
    for line in write_audit_page(folder, page):
        typer.echo(line)
    typer.echo(f"Written to {page}.")
