# SPDX-License-Identifier: Apache-2.0
"""Attackers who know how models are inspected, compared with clean models of digits.

``detector-aware`` trains against the detectors ``head`` and ``margin``, ``abi`` limits the
Lipschitz bounds of channels. The models have the seeds, triggers and recipes of those that the
study ``calibration`` has inspected; only the training of the attacker differs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.studies.calibration import CALIBRATIONS, RATES, verdicts
from benchmarks.studies.harness import RESULTS, save, start_workers
from benchmarks.studies.inspection import inspected
from benchmarks.studies.inspection_plans import ABI, AWARE, PLANS
from d3fast.attacks import recipe
from d3fast.audit.calibration import Calibration, read_calibration
from d3fast.results.format import fixed, mean, percent, value_range
from d3fast.results.jobs import Row
from d3fast.results.store import Results, read_results
from d3fast.results.table import text_table, to_markdown
from d3fast.runtime.checks import check_choice
from d3fast.training.intervals import wilson

UNAWARE = "calibration-digits-cpu"
EVERY = "every attack"


def evasion_rows(
    aware: Sequence[Row],
    unaware: Sequence[Row],
    calibration: Calibration,
    rate: float,
    attacker: str = AWARE,
) -> Iterator[Row]:
    """Yield what the detectors say of the models of every attack, without and with the attacker.

    Args:
        aware: inspected models of the attackers who know the detectors.
        unaware: inspected models of other attackers, of the same seeds and attacks among them.
        calibration: of their architecture.
        rate: false alarms of all detectors together.
        attacker: name of the adaptive attacker.
    """
    attacks = dict.fromkeys(row["attack"].partition(" (")[0] for row in aware)
    seeds = {row["seed"] for row in aware}
    usual = [row for row in unaware if row["attack"] in attacks and row["seed"] in seeds]
    for adaptive, rows in ((None, usual), (attacker, aware)):
        for attack in (EVERY, *attacks):
            own = [row for row in rows if attack in (EVERY, row["attack"].partition(" (")[0])]
            found = verdicts(own, calibration, rate)
            low, high = wilson(found.alarms, len(own))
            every = [result for each in found.rated for result in each]
            results = {name: [r for r in every if r.name == name] for name in own[0]["signs"]}
            yield {
                "kind": "evasion",
                "attack": attack,
                "adaptive": adaptive,
                "rate": found.found[0].rate,
                "models": len(own),
                "acc": mean(row["acc"] for row in own),
                "asr": mean(row["asr"] for row in own),
                "scores": {
                    name: median(r.value or 0.0 for r in own) for name, own in results.items()
                },
                "flagged_by": {name: sum(r.flagged for r in own) for name, own in results.items()},
                "found": found.alarms,
                "named": found.named,
                "low": low,
                "high": high,
            }


def evasion_table(results: Results) -> str:
    """Return one line per attack: the median scores and the flagged models, before and after."""
    rows = [row for row in results.rows if row["kind"] == "evasion"]
    names = list(rows[0]["scores"])
    (attacker,) = {row["adaptive"] for row in rows} - {None}
    lines = []
    for attack in dict.fromkeys(row["attack"] for row in rows):
        plain, aware = (
            next(row for row in rows if (row["attack"], row["adaptive"]) == (attack, adaptive))
            for adaptive in (None, attacker)
        )
        pairs = ((plain["scores"][name], aware["scores"][name]) for name in names)
        lines.append(
            [
                attack,
                str(aware["models"]),
                *(f"{percent(plain[key])} → {percent(aware[key])}" for key in ("acc", "asr")),
                *(" → ".join(fixed(value, 1) for value in pair) for pair in pairs),
                f"{plain['found']} → {_found(aware)}",
                f"{plain['named']} → {aware['named']}",
            ]
        )
    heads = ["", "models", "ACC %", "ASR %", *names, "flagged (95 %)", "named"]
    return to_markdown(text_table(heads, lines))


def _found(row: Row) -> str:
    return f"{row['found']} ({value_range(100 * row['low'], 100 * row['high'], 0)} %)"


def evasion(
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/evasion"),
    attacker: Annotated[str, typer.Option(help=f"{AWARE} or {ABI}.")] = AWARE,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
) -> None:
    """Run the jobs that are not finished and write ``evasion-cpu.json``, or that of ``abi``."""
    check_choice("attacker", attacker, (AWARE, ABI))
    with start_workers(out, workers) as pool:
        seen = inspected(attacker, pool)
    if seen.missing:
        raise SystemExit(f"{seen.missing} inspections are missing")
    before = read_results(RESULTS / f"{UNAWARE}.json")
    unaware = [row for row in before.rows if row["kind"] == "inspected"]
    calibration = read_calibration(CALIBRATIONS["digits"].path)
    made: Any = recipe("badnets", PLANS[attacker].preset.base.data, adaptive=attacker)
    options = {name: value for name, value in asdict(made).items() if name != "base"}
    settings = {"rate": RATES[0], "unaware": UNAWARE, "attacker": options}
    rows = [*evasion_rows(seen.rows, unaware, calibration, RATES[0], attacker), *seen.rows]
    if attacker == AWARE:
        save("evasion-cpu", "evasion", settings, rows)
    else:
        save(f"evasion-{attacker}-cpu", f"evasion --attacker {attacker}", settings, rows)
