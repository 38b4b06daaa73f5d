# SPDX-License-Identifier: Apache-2.0
"""``d3fast record``: write record.json of an audit, or compare an audit with its record."""

from pathlib import Path
from typing import Annotated

import typer

from d3fast.audit.report.record import RECORD, differences, record_of, write_record
from d3fast.cli.exit_codes import SIGNS
from d3fast.cli.output import Output


def record(
    folder: Annotated[Path, typer.Argument(help="Audit folder.")],
    output: Output,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the files with the record; write nothing.")
    ] = False,
) -> None:
    """Write hashes, settings, versions and verdicts of an audit into one file that can be signed.

    With --verify exit code 1 if a file differs from the record.
    """
    if not verify:
        path = write_record(folder, record_of(folder))
        output.say(f"Written to {path}.")
        output.document(path)
        return
    lines = differences(folder)
    output.say(*(lines or [f"All files agree with {folder / RECORD}."]))
    if lines:
        raise typer.Exit(SIGNS)
