# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast pilot``: a table for the terminal, pilot.json and pilot.toml.

``d3fast report`` reads pilot.json; ``d3fast detox --config`` takes pilot.toml.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from d3fast.audit.pilot import Pilot, PilotOptions
from d3fast.audit.report.documents import parse_pilot
from d3fast.audit.resolve import PILOT
from d3fast.io.files import written_together
from d3fast.results.format import fixed, percent, seconds, shortest, value_range
from d3fast.results.schema.pilot import HeldOutFields
from d3fast.results.store import Results
from d3fast.results.table import Cell, Table, to_rich

CONFIG = "pilot.toml"
_LETTERS = {"distance_weight": "w", "clean_weight": "λ", "epsilon": "ε"}


def pilot_settings(
    pilot: Pilot, options: PilotOptions, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings of pilot.json.

    Args:
        pilot: the completed rungs.
        options: of the pilot.
        settings: of the audit, and other options of the command.
    """
    return {
        **settings,
        "options": asdict(options),
        "config": asdict(pilot.base),
        "rungs": [list(rung) for rung in pilot.rungs],
        "rungs_done": pilot.done,
        "finished": pilot.finished,
        "seconds": pilot.seconds,
    }


def config_text(pilot: Pilot, limit: float | None = None) -> str:
    """Return the recommended setting in TOML, by the names of ``D3Config``."""
    chosen = pilot.recommended
    lines = ["# The setting that d3fast pilot recommends: --config FILE of repair and detox."]
    lines += ['preset = "auto"', "", "[d3]"]
    lines += [f"{name} = {float(chosen[name])!r}" for name in _LETTERS]
    lines += ["dual_step = 0.0  # lambda stays as it was tried"]
    lines += [] if limit is None else [f"max_acc_drop = {float(limit)!r}"]
    return "\n".join(lines) + "\n"


def write_pilot(
    pilot: Pilot,
    options: PilotOptions,
    settings: Mapping[str, Any],
    command: str,
    folder: Path,
    limit: float | None = None,
) -> None:
    """Write pilot.json and pilot.toml together.

    Args:
        pilot: the completed rungs.
        options: of the pilot.
        settings: see ``pilot_settings``.
        command: the command line, without paths.
        folder: of the files; it is made.
        limit: of accuracy, as the user set it.
    """
    results = Results(command, pilot_settings(pilot, options, settings), pilot.rows)
    with written_together(folder) as place:
        results.write(place / PILOT)
        (place / CONFIG).write_text(config_text(pilot, limit), encoding="utf-8")


def pilot_table(pilot: Pilot) -> Table:
    """Return one line per setting on its last rung; those with the longest repairs first."""
    found = parse_pilot(pilot.rows)
    latest = {trial.trial: trial for trial in found.trials}  # rungs come in order
    known = found.trigger_known
    headings = (
        "setting",
        *_LETTERS.values(),
        "epochs",
        "ACC %",
        "95 %",
        "inv. %",
        *(["trig. %"] if known else []),
        "lift",
        "dist.",
        "s",
    )
    lines = []
    if found.suspect is not None:
        cells = (*[Cell("")] * 4, *_rates(found.suspect, known), *[Cell("")] * 2)
        lines.append(("suspect", cells))
    chosen = found.recommendation and found.recommendation.trial
    for trial in sorted(latest.values(), key=lambda trial: (-trial.rung, trial.trial)):
        best = trial.trial == chosen
        cells = (
            *(Cell(shortest(getattr(trial, name)), bold=best) for name in _LETTERS),
            Cell(f"{trial.epochs}"),
            *_rates(trial, known),
            Cell(fixed(trial.distance, 2)),
            Cell(fixed(trial.seconds)),
        )
        front = trial.pareto and trial.rung == found.last_rung
        lines.append((f"{trial.trial} {'•' * front}{'←' * best}".strip(), cells))
    return Table(headings, tuple(lines), references=("suspect",))


def _rates(row: HeldOutFields, trigger_known: bool) -> list[Cell]:
    rates = [row.inversion_asr, *([row.asr] if trigger_known else []), row.attack_lift]
    return [
        Cell(percent(row.acc)),
        Cell(value_range(100 * row.acc_low, 100 * row.acc_high, 0)),
        *(Cell(percent(rate)) for rate in rates),
    ]


def legend(pilot: Pilot) -> list[str]:
    """Explain the columns of the table, a line each."""
    found, lines = parse_pilot(pilot.rows), []
    if found.suspect is not None:
        classes = ", ".join(f"class {target}" for target in found.suspect.targets)
        why = "outliers" if found.suspect.flagged else "no trigger is an outlier: the smallest one"
        lines.append(f"inv.: success rate of the inverted triggers toward {classes} ({why})")
    if found.trigger_known:
        lines.append("trig.: success rate of the known trigger")
    deciding = "the known trigger" if found.trigger_known else "the inverted triggers"
    return [
        *lines,
        f"lift: success rate of {deciding} minus the share answered so without it",
        "dist.: distance of the tracked weights / their norm; s: seconds of the repair",
        "•: on the Pareto front of the last rung (accuracy, lift); ←: recommended",
    ]


def sensitivity_lines(pilot: Pilot) -> list[str]:
    """Return the mean rates of the first rung by the values of each option, a line each."""
    lines = []
    for row in parse_pilot(pilot.rows).sensitivities:
        values = ", ".join(map(shortest, row.values))
        acc, asr = (", ".join(map(percent, means)) for means in (row.acc, row.inversion_asr))
        lines.append(
            f"{_LETTERS[row.parameter]} = {values}: ACC {acc} % "
            f"(range {percent(row.acc_range)}), inverted {asr} % "
            f"(range {percent(row.asr_range)})"
        )
    return lines


def cost_line(pilot: Pilot) -> str:
    """Return the seconds of the pilot, of a trial on each rung, and of a whole repair."""
    trials, advice = parse_pilot(pilot.rows).trials, pilot.recommended
    each = [
        f"{seconds(median(t.seconds for t in trials if t.rung == rung))} for {epochs} epochs"
        for rung, (_, epochs) in enumerate(pilot.rungs[: pilot.done])
    ]
    return (
        f"Cost: the pilot took {seconds(pilot.seconds)}, a trial {', '.join(each)}; the "
        f"recommended repair of at most {advice['epochs']} epochs takes about "
        f"{seconds(advice['seconds'])}."
    )


def print_pilot(pilot: Pilot, console: Console) -> None:
    """Print table, sensitivity, recommendation and cost."""
    failed, advice = parse_pilot(pilot.rows).failed, pilot.recommended
    table = to_rich(pilot_table(pilot), "Short repairs, held-out clean samples")
    console.print(table)
    why = str(advice["why"])
    lines = [
        *legend(pilot),
        "",
        f"Effect of each option after {pilot.rungs[0][1]} epochs:",
        *sensitivity_lines(pilot),
        *(f"Setting {row.trial} failed: {row.reason}." for row in failed),
        "",
        f"Recommended: setting {advice['trial']}. {why[:1].upper()}{why[1:]}.",
        cost_line(pilot),
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False)
