# SPDX-License-Identifier: Apache-2.0
"""``d3fast report``: parses, calls, prints."""

from pathlib import Path
from typing import Annotated

import typer

from d3fast.audit.report.page import write_audit_page
from d3fast.audit.resolve import PAGE
from d3fast.cli.options import CASE


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of the case.")] = CASE,
    out: Annotated[
        Path | None, typer.Option(help=f"The page; {PAGE} in the folder by default.")
    ] = None,
) -> None:
    """One page, readable without background, from what the other commands left in a folder.

    It takes inspect.json, pilot.json, card.json and spectrum.json, those that are there.
    """
    page = folder / PAGE if out is None else out
    for line in write_audit_page(folder, page):
        typer.echo(line)
    typer.echo(f"Written to {page}.")
