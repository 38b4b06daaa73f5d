# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of committed results into the pages: ``python -m benchmarks.readme [--check]``.

A table stands between ``<!-- table: NAME#PART -->`` and ``<!-- end -->``; NAME is a file of
``benchmarks/results`` without its ending, PART one of ``PARTS``. ``NAME+NAME#PART`` is one table of
several runs of ``d3fast benchmark`` on different seeds; see ``joined``. With ``--check`` nothing is
written; the exit code is 1 if a page differs.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

from benchmarks.gpu.resources import resources_table
from benchmarks.speed.adamw import adamw_table
from benchmarks.speed.compare import compare_table
from benchmarks.speed.report import (
    bandwidth_table,
    constraint_table,
    cost_table,
    half_table,
    repair_table,
    short_table,
    step_table,
)
from benchmarks.studies.ablations import ablations_table
from benchmarks.studies.calibration_report import calibrated_table
from benchmarks.studies.evasion import evasion_table
from benchmarks.studies.feature_mask import feature_mask_table
from benchmarks.studies.in_backward import in_backward_table
from benchmarks.studies.inspection_cost import inspection_cost_table
from benchmarks.studies.inspection_report import (
    areas_table,
    inspect_table,
    rates_table,
    tries_table,
)
from benchmarks.studies.narrow_state import narrow_table
from benchmarks.studies.precision import DTYPES, precision_table, worst_table
from benchmarks.studies.scaling_report import (
    bytes_table,
    check_table,
    memory_table,
    models_table,
    time_table,
)
from benchmarks.studies.search import search_markdown
from benchmarks.studies.shards import shards_table
from benchmarks.studies.spectrum_report import path_table, peers_table, why_table
from benchmarks.studies.threads import threads_table
from benchmarks.studies.two_classes import two_classes_table
from benchmarks.studies.weights import seconds_table
from d3fast.benchmark.report.attacks import attacks_markdown
from d3fast.benchmark.report.benchmark import (
    adaptive_markdown,
    goals_markdown,
    grid_markdown,
    reactivation_markdown,
    relearning_markdown,
    summary_markdown,
)
from d3fast.benchmark.report.demo import demo_markdown
from d3fast.results.schema.benchmark import read_attacks, read_demo, read_grid
from d3fast.results.store import Results, read_results

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    ROOT / "README.md",
    *(
        ROOT / "docs" / f"{name}.md"
        for name in (
            "demo",
            "performance",
            "attacks",
            "benchmark",
            "research",
            "spectrum",
            "why",
            "inspect",
            "detectors",
            "precision",
            "scaling",
            "distributed",
            "text",
        )
    ),
)


def _columns(table: str, names: Sequence[str]) -> str:
    """Return the first table of a Markdown text, cut to its first column and the named ones."""
    lines = dropwhile(lambda line: not line.startswith("|"), table.splitlines())
    rows = [line.strip("|").split("|") for line in takewhile(lambda line: line[:1] == "|", lines)]
    heads = [head.strip() for head in rows[0]]
    kept = (0, *(heads.index(name) for name in names))
    return "\n".join("|" + "|".join(row[column] for column in kept) + "|" for row in rows)


PARTS: Mapping[str, Callable[[Results], str]] = {
    "demo": lambda results: demo_markdown(read_demo(results.rows)),
    "attacks": lambda results: attacks_markdown(read_attacks(results.rows)),
    "main": lambda results: _columns(
        summary_markdown(read_grid(results.rows)), ("ACC %", "ASR %", "floor", "lift", "DER %")
    ),
    "summary": lambda results: summary_markdown(read_grid(results.rows)),
    "grid": lambda results: grid_markdown(read_grid(results.rows)),
    "adaptive": lambda results: adaptive_markdown(read_grid(results.rows)),
    "reactivation": lambda results: reactivation_markdown(read_grid(results.rows)),
    "ablations": ablations_table,
    "relearning": lambda results: relearning_markdown(read_grid(results.rows)),
    "verdict": lambda results: goals_markdown(read_grid(results.rows)),
    "search": lambda results: search_markdown(results.rows),
    "step": step_table,
    "short": short_table,
    "constraints": constraint_table,
    "cost": cost_table,
    "half": half_table,
    "bandwidth": bandwidth_table,
    "repair": repair_table,
    "peers": peers_table,
    "why": why_table,
    "way": path_table,
    "inspect-digits": lambda results: areas_table(results, "digits"),
    "inspect-waves": lambda results: areas_table(results, "waves"),
    "inspect-fashion": lambda results: areas_table(results, "fashion-mnist"),
    "inspect-rates": rates_table,
    "calibrated": calibrated_table,
    "evasion": evasion_table,
    "two-classes": two_classes_table,
    "inspection-cost": inspection_cost_table,
    "differential-tries": tries_table,
    "feature-mask": feature_mask_table,
    "weights-digits": lambda results: inspect_table(results, "digits"),
    "weights-seconds": seconds_table,
    "worst": worst_table,
    "threads": threads_table,
    "adamw": adamw_table,
    "compare": compare_table,
    "narrow": narrow_table,
    "in-backward": in_backward_table,
    "scaling-bytes": bytes_table,
    "scaling-models": models_table,
    "scaling-memory": memory_table,
    "scaling-time": time_table,
    "scaling-check": check_table,
    "shards": shards_table,
    "resources": resources_table,
    **{
        f"{dtype}-{measure}": partial(precision_table, dtype=dtype, measure=measure)
        for dtype in DTYPES
        for measure in ("way", "distance", "norm")
    },
}


def joined(runs: Sequence[Results]) -> Results:
    """Return the rows of several benchmarks whose cell, apart from the seed, is in every run.

    A cell is a kind of row, a defence and an attack. Its options must be the same in all runs.

    Raises:
        ValueError: one defence with other options in another run.
    """

    def cell(row: Mapping[str, Any]) -> str:
        names = ("kind", "defense", "attack", "adaptive", "ratio", "clean", "data", "model")
        return json.dumps([row.get(name) for name in names])

    def options(row: Mapping[str, Any]) -> str:
        stages = row.get("options")
        if isinstance(stages, list):
            stages = [{k: v for k, v in stage.items() if k != "seed"} for stage in stages]
        return json.dumps(stages, sort_keys=True)

    found: list[dict[str, str]] = [{cell(row): options(row) for row in run.rows} for run in runs]
    everywhere = set.intersection(*map(set, found))
    for key in everywhere:
        if len({each[key] for each in found}) > 1:
            raise ValueError(f"{key} has other options in another run")
    rows = [row for run in runs for row in run.rows if cell(row) in everywhere]
    return Results("; ".join(run.command for run in runs), {}, rows)


_BLOCK = re.compile(r"(<!-- table: ([^# ]+)#(\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def filled(text: str, folder: Path = RESULTS) -> str:
    """Return a text with every marked table replaced by that of the results in a folder.

    Raises:
        ValueError: an unknown part, or a file without results.
    """

    def block(match: re.Match[str]) -> str:
        start, name, part, _, end = match.groups()
        if part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
        runs = [read_results(folder / f"{each}.json") for each in name.split("+")]
        return f"{start}{PARTS[part](joined(runs) if len(runs) > 1 else runs[0])}\n{end}"

    return _BLOCK.sub(block, text)


def main(check: bool) -> int:
    """Write all pages, or compare them if ``check``; return 1 if a compared page differs."""
    differs = False
    for page in PAGES:
        old = page.read_text(encoding="utf-8")
        new = filled(old)
        if check and new != old:
            print(f"{page.relative_to(ROOT)}: tables differ from benchmarks/results")
            differs = True
        elif new != old:
            page.write_text(new, encoding="utf-8")
    return int(differs)


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
