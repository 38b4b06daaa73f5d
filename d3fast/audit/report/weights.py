# SPDX-License-Identifier: Apache-2.0
"""A look at the weights, and a comparison of two models, as tables for the terminal."""

from rich.console import Console

from d3fast.audit.difference import Difference
from d3fast.audit.report.inspection import detector_lines
from d3fast.audit.weights import WeightScan
from d3fast.io.untrusted import printable
from d3fast.results.format import MISSING, count, fixed, percent, significant
from d3fast.results.table import text_table, to_rich

_NAME = 60  # characters of a name in a table
_MAX_ROWS = 5


def print_scan(found: WeightScan, console: Console) -> None:
    """Print the detectors and the verdict of a look at the weights."""

    def name(target: int | None) -> str:
        return MISSING if target is None else printable(found.classes[target], 30)

    table = detector_lines(found.results, name)
    console.print(to_rich(table))
    console.print(found.verdict.text, highlight=False, markup=False)


def print_difference(found: Difference, console: Console, most: int = 20) -> None:
    """Print where a suspect departs from its base.

    Args:
        found: of ``compare_weights``.
        console: where to print.
        most: largest number of tensors shown, those with the largest relative change.
    """
    changed, total = found.changed, found.total
    moved = percent(total.relative, 2, "%") if total.relative is not None else MISSING
    console.print(
        f"{len(changed)} of {count(len(found.tensors), 'tensor')} differ; all weights moved "
        f"{moved} of their norm.",
        highlight=False,
    )
    lines = (
        (
            printable(tensor.name, _NAME),
            percent(tensor.relative, 2),
            percent(tensor.share, 0),
            MISSING if tensor.rank is None else f"{fixed(tensor.rank)} of {tensor.most}",
        )
        for tensor in changed[:most]
    )
    headings = ("tensor", "change %", "largest singular value %", "effective rank")
    if changed:
        console.print(to_rich(text_table(headings, lines)))
    if len(changed) > most:
        console.print(f"{len(changed) - most} more, see --out or --json.", highlight=False)
    rows = [row for row in found.rows[:_MAX_ROWS] if row.distance > 0]
    if rows:
        parts = (f"{row.target} ({significant(row.distance, 2)})" for row in rows)
        console.print(f"Head rows changed most: class {', '.join(parts)}.", highlight=False)
    for name, reason in found.mismatches[:_MAX_ROWS]:
        console.print(f"{printable(name, _NAME)}: {reason}", highlight=False, markup=False)
    if len(found.mismatches) > _MAX_ROWS:
        console.print(f"{len(found.mismatches) - _MAX_ROWS} more do not match.", highlight=False)
