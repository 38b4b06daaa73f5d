# SPDX-License-Identifier: Apache-2.0
"""What ``d3fast inspect`` prints: the signs in a table, and the verdict."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from d3fast.audit import Finding, Inspection
from d3fast.io.untrusted import printable


def _value(found: Finding) -> str:
    return "–" if found.value is None else f"{found.value:.1f}"


def print_inspection(found: Inspection, console: Console) -> None:
    """Print what was found out about a model."""

    def name(target: int | None) -> str:
        return "–" if target is None else printable(found.classes[target], 30)

    low, high = (100 * bound for bound in found.metrics.acc_interval)
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("sign", "furthest class", "value", "threshold", "raised"):
        table.add_column(heading, justify="left" if heading in ("sign", "raised") else "right")
    for sign in found.findings:
        table.add_row(
            sign.name,
            Text(name(sign.target)),
            _value(sign),
            f"{sign.threshold:.1f}",
            "yes" if sign.raised else "no",
        )
    console.print(
        f"Accuracy on {found.metrics.images} clean samples: {100 * found.metrics.acc:.1f} % "
        f"(95 % interval {low:.1f} to {high:.1f}).",
        highlight=False,
    )
    console.print(table)
    console.print(found.verdict.text, highlight=False, markup=False)
