# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast inspect`` on the terminal: accuracy, detector results, verdict."""

from rich.console import Console

from d3fast.audit import Inspection
from d3fast.audit.inspect_text import TextInspection
from d3fast.io.untrusted import printable
from d3fast.results.format import MISSING, fixed, percent
from d3fast.results.table import text_table, to_rich


def print_inspection(found: Inspection | TextInspection, console: Console) -> None:
    """Print accuracy, detector results and verdict of a model."""

    def name(target: int | None) -> str:
        return MISSING if target is None else printable(found.classes[target], 30)

    low, high = found.metrics.acc_interval
    lines = (
        (
            result.name,
            name(result.target),
            fixed(result.value),
            fixed(result.threshold),
            "yes" if result.flagged else "no",
        )
        for result in found.results
    )
    table = text_table(("detector", "highest class", "score", "threshold", "flagged"), lines)
    console.print(
        f"Accuracy on {found.metrics.images} clean samples: {percent(found.metrics.acc)} % "
        f"(95 % interval {percent(low)} to {percent(high)}).",
        highlight=False,
    )
    console.print(to_rich(table))
    console.print(found.verdict.text, highlight=False, markup=False)
