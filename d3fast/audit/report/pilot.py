# SPDX-License-Identifier: Apache-2.0
"""What ``d3fast pilot`` prints and leaves behind: a table, pilot.json, pilot.toml.

The page of a case draws its figures from pilot.json; ``d3fast detox --config`` takes pilot.toml.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from d3fast.audit.pilot import Pilot, PilotOptions
from d3fast.audit.resolve import PILOT
from d3fast.io.files import atomic_write
from d3fast.results.format import fixed, percent, seconds, shortest, value_range
from d3fast.results.store import Results
from d3fast.results.table import Cell, Table, to_rich

Row = Mapping[str, Any]

CONFIG = "pilot.toml"
_LETTERS = {"distance_weight": "w", "clean_weight": "λ", "epsilon": "ε"}


def pilot_settings(
    pilot: Pilot, options: PilotOptions, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of pilot.json.

    Args:
        pilot: what is known.
        options: of the pilot.
        settings: of the case, and what else the command chose.
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


def config_text(pilot: Pilot, max_acc_drop: float) -> str:
    """The recommended setting in TOML, by the names of ``D3Config``."""
    chosen = pilot.recommended
    lines = ["# The setting that d3fast pilot recommends: d3fast detox --config FILE takes it."]
    lines += ['preset = "auto"']
    lines += [f"{name} = {float(chosen[name])!r}" for name in _LETTERS]
    lines += ["dual_step = 0.0  # lambda stays as it was tried"]
    lines += [f"max_acc_drop = {float(max_acc_drop)!r}"]
    return "\n".join(lines) + "\n"


def write_pilot(
    pilot: Pilot, options: PilotOptions, settings: Mapping[str, Any], command: str, folder: Path
) -> None:
    """Write pilot.json and pilot.toml, each whole or not at all.

    Args:
        pilot: what is known; not all rungs need to be complete.
        options: of the pilot.
        settings: see ``pilot_settings``.
        command: the command line, without paths.
        folder: where the files go; it exists.
    """
    Results(command, pilot_settings(pilot, options, settings), pilot.rows).write(folder / PILOT)
    with atomic_write(folder / CONFIG) as temporary:
        temporary.write_text(config_text(pilot, options.max_acc_drop), encoding="utf-8")


def pilot_table(pilot: Pilot) -> Table:
    """One line per setting, as it was on its last rung; those that came furthest first."""
    (suspect,) = pilot.of("suspect")
    trials = pilot.of("trial")
    latest = {row["trial"]: row for row in trials}  # rungs come in order
    given = suspect["asr"] is not None
    headings = (
        "setting",
        *_LETTERS.values(),
        "epochs",
        "ACC %",
        "95 %",
        "inv. %",
        *(["trig. %"] if given else []),
        "way",
        "s",
    )
    lines = [("suspect", (*[Cell("")] * 4, *_rates(suspect, given), *[Cell("")] * 2))]
    for row in sorted(latest.values(), key=lambda row: (-row["rung"], row["trial"])):
        best = row["trial"] == pilot.recommended["trial"]
        cells = [Cell(shortest(row[name]), bold=best) for name in _LETTERS]
        cells += [Cell(f"{row['epochs']}"), *_rates(row, given)]
        cells += [Cell(fixed(row["distance"], 2)), Cell(fixed(row["seconds"]))]
        front = row["pareto"] and row["rung"] == trials[-1]["rung"]
        lines.append((f"{row['trial']} {'•' * front}{'←' * best}".strip(), tuple(cells)))
    return Table(headings, tuple(lines), references=("suspect",))


def legend(pilot: Pilot) -> list[str]:
    """What the columns of the table are, a line each."""
    (suspect,) = pilot.of("suspect")
    classes = ", ".join(f"class {target}" for target in suspect["targets"])
    why = "masks that stand out" if suspect["flagged"] else "no mask stands out: the smallest"
    lines = [f"inv.: % of other classes' images that answer {classes} ({why})"]
    if suspect["asr"] is not None:
        lines.append("trig.: the same for the trigger that was given")
    return [
        *lines,
        "way: of the tracked weights, in units of their norm; s: seconds of the repair",
        "•: on the front, no other of the last rung is better in accuracy and success; ←: advised",
    ]


def _rates(row: Row, given: bool) -> list[Cell]:
    shown = [row["inversion_asr"], *([row["asr"]] if given else [])]
    return [
        Cell(percent(row["acc"])),
        Cell(value_range(100 * row["acc_low"], 100 * row["acc_high"], 0)),
        *(Cell(percent(rate)) for rate in shown),
    ]


def sensitivity_lines(pilot: Pilot) -> list[str]:
    """The means of the first rung by the values of each parameter, a line each."""
    lines = []
    for row in pilot.of("sensitivity"):
        values = ", ".join(map(shortest, row["values"]))
        acc = ", ".join(map(percent, row["acc"]))
        asr = ", ".join(map(percent, row["inversion_asr"]))
        lines.append(
            f"{_LETTERS[row['parameter']]} = {values}: ACC {acc} % "
            f"(range {percent(row['acc_range'])}), inverted {asr} % "
            f"(range {percent(row['asr_range'])})"
        )
    return lines


def cost_line(pilot: Pilot) -> str:
    """Seconds of the pilot, of a trial on each rung, and of a whole repair."""
    trials, advice = pilot.of("trial"), pilot.recommended
    each = [
        f"{seconds(median(r['seconds'] for r in trials if r['rung'] == rung))} for {epochs} epochs"
        for rung, (_, epochs) in enumerate(pilot.rungs[: pilot.done])
    ]
    return (
        f"Cost: the pilot took {seconds(pilot.seconds)}, a trial {', '.join(each)}; the "
        f"recommended repair of at most {advice['epochs']} epochs takes about "
        f"{seconds(advice['seconds'])}."
    )


def print_pilot(pilot: Pilot, console: Console) -> None:
    """Print table, sensitivity, recommendation and cost."""
    table = to_rich(pilot_table(pilot), "Short repairs, held-out clean samples")
    console.print(table)
    lines = [*legend(pilot), "", f"What each parameter changes, after {pilot.rungs[0][1]} epochs:"]
    lines += sensitivity_lines(pilot)
    lines += [f"Setting {row['trial']} failed: {row['reason']}." for row in pilot.of("failed")]
    lines += ["", f"Recommended: setting {pilot.recommended['trial']}. {_sentence(pilot)}"]
    lines += [cost_line(pilot)]
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _sentence(pilot: Pilot) -> str:
    why = str(pilot.recommended["why"])
    return why[0].upper() + why[1:] + "."
