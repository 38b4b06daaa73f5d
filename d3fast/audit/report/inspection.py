# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast inspect`` on the terminal: accuracy, detector results, verdict."""

from collections.abc import Callable, Sequence

from rich.console import Console

from d3fast.audit import DetectorResult, Inspection
from d3fast.audit.inspect_text import TextInspection
from d3fast.io.untrusted import printable
from d3fast.results.format import MISSING, fixed, percent, significant
from d3fast.results.table import Table, text_table, to_rich


def print_inspection(found: Inspection | TextInspection, console: Console) -> None:
    """Print accuracy, detector results and verdict of a model."""

    def name(target: int | None) -> str:
        return MISSING if target is None else printable(found.classes[target], 30)

    low, high = found.metrics.acc_interval
    table = detector_lines(found.results, name)
    console.print(
        f"Accuracy on {found.metrics.images} clean samples: {percent(found.metrics.acc)} % "
        f"(95 % interval {percent(low)} to {percent(high)}).",
        highlight=False,
    )
    console.print(to_rich(table))
    console.print(found.verdict.text, highlight=False, markup=False)


def detector_lines(results: Sequence[DetectorResult], name: Callable[[int | None], str]) -> Table:
    """Return the table of detectors, with p-values where there is a calibration.

    Args:
        results: of the detectors.
        name: of a class.
    """
    rated = any(result.p_value is not None for result in results)
    headings = ["detector", "highest class", "score", "threshold", *["p"] * rated, "flagged"]
    lines = (
        (
            result.name,
            name(result.target),
            fixed(result.value),
            fixed(result.threshold) if result.counts else MISSING,
            *([significant(result.p_value, 2)] if rated else []),
            "yes" if result.flagged else "no",
        )
        for result in results
    )
    return text_table(headings, lines)
