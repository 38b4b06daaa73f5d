# SPDX-License-Identifier: Apache-2.0
"""What a command prints: text for people, or with ``--json`` one document on standard output."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from d3fast.io.untrusted import printable
from d3fast.results.store import Results

_LINE = 2000  # characters: a line may quote an untrusted file


@dataclass(frozen=True)
class Output:
    """Options of every command about what it prints.

    Attributes:
        as_json: print the results document on standard output and the text on standard error.
        quiet: print neither text nor progress bars.
        progress: show progress bars.
    """

    as_json: Annotated[
        bool, typer.Option("--json", help="Print the results document as JSON; text to stderr.")
    ] = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors alone.")] = False
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True

    @property
    def bars(self) -> bool:
        """Show progress bars."""
        return self.progress and not self.quiet

    @property
    def console(self) -> Console:
        """Where the text goes."""
        return Console(stderr=self.as_json, quiet=self.quiet)

    def say(self, *lines: str) -> None:
        """Print lines; control characters of untrusted files are replaced."""
        for line in lines:
            shown = printable(line, _LINE)
            self.console.print(shown, highlight=False, markup=False, soft_wrap=True)

    def notes(self, notes: Sequence[str]) -> None:
        """Print what was inferred about model and samples, on standard error."""
        if not self.quiet:
            for note in notes:
                typer.echo(f"note: {printable(note, _LINE)}", err=True)

    def document(self, path: Path) -> None:
        """Print a results file on standard output if JSON was asked for."""
        if self.as_json:
            typer.echo(path.read_text(encoding="utf-8"), nl=False)

    def results(self, results: Results) -> None:
        """Print results that have no file of their own, likewise."""
        if self.as_json:
            typer.echo(results.text(), nl=False)
