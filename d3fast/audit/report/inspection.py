# SPDX-License-Identifier: Apache-2.0
"""What ``d3fast inspect`` prints: the signs in a table, and the verdict."""

from rich.console import Console

from d3fast.audit import Inspection
from d3fast.io.untrusted import printable
from d3fast.results.format import MISSING, fixed, percent
from d3fast.results.table import text_table, to_rich


def print_inspection(found: Inspection, console: Console) -> None:
    """Print what was found out about a model."""

    def name(target: int | None) -> str:
        return MISSING if target is None else printable(found.classes[target], 30)

    low, high = found.metrics.acc_interval
    lines = (
        (
            sign.name,
            name(sign.target),
            fixed(sign.value),
            fixed(sign.threshold),
            "yes" if sign.raised else "no",
        )
        for sign in found.findings
    )
    table = text_table(("sign", "furthest class", "value", "threshold", "raised"), lines)
    console.print(
        f"Accuracy on {found.metrics.images} clean samples: {percent(found.metrics.acc)} % "
        f"(95 % interval {percent(low)} to {percent(high)}).",
        highlight=False,
    )
    console.print(to_rich(table))
    console.print(found.verdict.text, highlight=False, markup=False)
