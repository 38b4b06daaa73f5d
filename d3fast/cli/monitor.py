# SPDX-License-Identifier: Apache-2.0
"""``d3fast monitor``: read two result files, compare them, print the changes."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from d3fast.audit.model_report import (
    REPAIRED,
    SUSPECT,
    ModelReport,
    class_names,
    parse_model_report,
)
from d3fast.audit.monitor import Change, compare, latest
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.exit_codes import MISSED
from d3fast.cli.output import Output
from d3fast.io.untrusted import printable
from d3fast.results.store import Results, read_results
from d3fast.results.table import Cell, Table, to_rich


def _read(path: Path) -> tuple[ModelReport, Sequence[str]]:
    results = read_results(path)
    try:
        found = latest(
            {role: parse_model_report(results.rows, role) for role in (REPAIRED, SUSPECT)}
        )
        return found, class_names(results.settings)
    except ValueError as error:
        raise ValueError(f"{printable(path.name)}: {error}") from None


def _table(changes: Sequence[Change]) -> Table:
    words = {True: "worse", False: "better", None: ""}
    lines = (
        (c.name, tuple(Cell(text) for text in (c.old, c.new, c.change, words[c.worse])))
        for c in changes
    )
    return Table(("", "then", "now", "change", ""), tuple(lines))


def monitor(
    old: Annotated[Path, typer.Argument(help="Earlier inspect.json or card.json.")],
    new: Annotated[Path, typer.Argument(help="Later inspect.json or card.json.")],
    config: ConfigFile,
    output: Output,
) -> None:
    """Compare two inspections or repairs: accuracy, inverted triggers, detectors.

    A card.json counts with its repaired model. Exit code 3 if anything became worse.
    """
    (then, old_classes), (now, new_classes) = _read(old), _read(new)
    comparison = compare(then, now, (old_classes, new_classes))
    output.console.print(to_rich(_table(comparison.changes), "Then and now"))
    for line in (*comparison.notes, comparison.sentence):
        output.console.print(line, highlight=False, markup=False)
    rows = [{"kind": "change", **asdict(change)} for change in comparison.changes]
    settings = {"notes": list(comparison.notes), "sentence": comparison.sentence}
    output.results(Results("d3fast monitor", settings, rows))
    if comparison.worse:
        raise typer.Exit(MISSED)
