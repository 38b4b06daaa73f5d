# SPDX-License-Identifier: Apache-2.0
"""The table of the study ``calibration``, for the docs."""

from benchmarks.studies.inspection_rates import ALL, CLEAN
from d3fast.results.format import MISSING, fixed, mean, percent, value_range
from d3fast.results.jobs import Row
from d3fast.results.store import Results
from d3fast.results.table import text_table, to_markdown


def calibrated_table(results: Results) -> str:
    """Return one line per attack: areas and detections, by class and by score, at the lowest rate.

    Args:
        results: of ``python -m benchmarks.studies calibration``.
    """
    models = [row for row in results.rows if row["kind"] == "inspected"]
    every = [row for row in results.rows if row["kind"] == "calibrated"]
    lowest = min(row["rate"] for row in every)
    rows = [row for row in every if row["rate"] == lowest]
    detectors = list(models[0]["signs"])
    lines = []
    for attack in dict.fromkeys(row["attack"] for row in rows):
        own = {(r["detectors"], r["by_class"]): r for r in rows if r["attack"] == attack}
        whole, before = own[ALL, True], own[ALL, False]
        asr = [row["asr"] for row in models if row["attack"] == attack]
        lines.append(
            [
                attack,
                str(whole["models"]),
                percent(mean(asr), 0) if any(asr) else MISSING,
                *(_area(own[name, True]) for name in detectors),
                _area(whole, interval=True),
                *_found(whole),
                _area(before),
                _found(before)[0],
            ]
        )
    heads = ["", "models", "ASR %", *detectors, "all (95 %)", "flagged (95 %)", "named"]
    return to_markdown(text_table([*heads, "all, by score", "flagged, by score"], lines))


def _area(row: Row, *, interval: bool = False) -> str:
    if row["auc"] is None:
        return MISSING
    area = fixed(row["auc"], 2)
    low, high = row["auc_interval"]
    return f"{area} ({value_range(low, high, 2)})" if interval else area


def _found(row: Row) -> tuple[str, str]:
    low, high = 100 * row["low"], 100 * row["high"]
    named = MISSING if row["attack"] == CLEAN else str(row["named"])
    return f"{row['found']} ({value_range(low, high, 0)} %)", named
