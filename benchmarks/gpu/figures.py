# SPDX-License-Identifier: Apache-2.0
"""A figure that a stage measures, beside the one that was predicted for it.

A worker runs in a process of its own and prints its figures as lines of JSON, so that those it
measured before a crash or a time limit are kept.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.gpu.predictions import Prediction, predicted

SKIPPED = "skipped: "  # begins a worker's line that says why it measured nothing
_MARK = "figure: "


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured; predictions are found by it.
        value: the number.
        unit: of the number.
        spread: between the quartiles of a median, in the same unit.
    """

    name: str
    value: float
    unit: str
    spread: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.name} must be finite, got {self.value!r}")

    def row(self, machine: str) -> dict[str, Any]:
        """Return the columns of the result file.

        Args:
            machine: short name of the GPU; a time was predicted for one GPU only.
        """
        prediction = predicted(self.name, machine)
        return {**asdict(self), **_columns(prediction), "as_predicted": _agrees(self, prediction)}


def _columns(prediction: Prediction | None) -> dict[str, Any]:
    if prediction is None:
        return {"predicted_low": None, "predicted_high": None, "prediction": None}
    low, high = prediction.low, prediction.high
    return {"predicted_low": low, "predicted_high": high, "prediction": prediction.source}


def _agrees(figure: Figure, prediction: Prediction | None) -> bool | None:
    return None if prediction is None else prediction.low <= figure.value <= prediction.high


def emit(name: str, value: float, unit: str, spread: float | None = None) -> None:
    """Print a figure for the process that started this one."""
    print(_MARK + json.dumps(asdict(Figure(name, value, unit, spread))), flush=True)


def parse_figures(output: str) -> list[Figure]:
    """Return the figures in a worker's output.

    Example:
        >>> parse_figures('x\\nfigure: {"name": "copy", "value": 4.3, "unit": "TB/s"}\\n')
        [Figure(name='copy', value=4.3, unit='TB/s', spread=None)]
    """
    lines = (line for line in output.splitlines() if line.startswith(_MARK))
    return [Figure(**json.loads(line.removeprefix(_MARK))) for line in lines]


def comparison(rows: Iterable[dict[str, Any]]) -> str:
    """Return the lines of a stage: measured, predicted, and whether they agree.

    Example:
        >>> print(comparison([Figure("ResNet-18, free: replay", 0.08, "ms").row("h200")]))
          ResNet-18, free: replay                     0.08 ms    predicted 0.07-0.085  as predicted
    """
    return "\n".join(map(_line, rows))


def _line(row: dict[str, Any]) -> str:
    measured = f"  {row['name']:40} {row['value']:>7.4g} {row['unit']:5}"
    if row["predicted_low"] is None:
        return f"{measured} no prediction"
    verdict = "as predicted" if row["as_predicted"] else "NOT as predicted"
    return f"{measured} predicted {row['predicted_low']:.3g}-{row['predicted_high']:.3g}  {verdict}"
