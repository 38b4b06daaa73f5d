# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast calibrate`` on the terminal: the scores of the clean models."""

from statistics import median

from rich.console import Console

from d3fast.audit.calibration import Calibration
from d3fast.results.format import count, fixed, significant, value_range
from d3fast.results.table import text_table, to_rich


def print_calibration(found: Calibration, console: Console) -> None:
    """Print the accuracy of the clean models, and the spread of their scores per detector."""
    accuracies = [100 * model.acc for model in found.clean]
    middle, ends = fixed(median(accuracies)), value_range(min(accuracies), max(accuracies))
    console.print(
        f"{count(len(found.clean), 'clean model')}, accuracy on samples that they were not trained "
        f"on: {middle} % (median; {ends} %). The smallest p-value is "
        f"{significant(1 / (len(found.clean) + 1), 2)}.",
        highlight=False,
    )
    lines = []
    for name in found.detectors:
        scores = sorted(found.clean_scores(name))
        lines.append((name, fixed(median(scores)), fixed(scores[-1])))
    console.print(to_rich(text_table(("detector", "median score", "largest score"), lines)))
