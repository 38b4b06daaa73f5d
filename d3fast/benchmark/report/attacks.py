# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast attack`` and ``d3fast benchmark attacks``: table, goals, picture, JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from d3fast.attacks import Attack, load_attack
from d3fast.benchmark.attack_jobs import AttackJob, AttackPreset
from d3fast.benchmark.implant import AttackResult, AttackSpec, save_suspect
from d3fast.benchmark.labels import attack_label
from d3fast.benchmark.report.trigger_plot import trigger_figure
from d3fast.io.files import written_together
from d3fast.results.format import fixed, shortest
from d3fast.results.jobs import RunDir
from d3fast.results.plot import save_png
from d3fast.results.schema.benchmark import AttackRow
from d3fast.results.store import Results
from d3fast.results.table import Column, Row, Table, mean_table, to_markdown, to_rich

COLUMNS = (
    Column("acc", "ACC %", scale=100),
    Column("acc_loss", "ACC loss", scale=100),
    Column("asr", "ASR %", scale=100),
    Column("floor", "floor", scale=100),
    Column("lift", "lift", scale=100),
    Column("ra", "RA %", scale=100),
    Column("ra_ceiling", "ceiling", scale=100),
)
CAPTION = (
    "ASR: triggered images of other classes classified as the attacker wants. RA: triggered images "
    "classified correctly. Floor and ceiling: ASR and RA of the clean model, trained without "
    "poisoned samples. Lift: ASR minus the share of the same images that the same model classifies "
    "that way without the trigger. ACC loss: ACC of the clean model minus ACC."
)
# Goals of an attack on every seed, in points; clean-label attacks are weaker.
MIN_ASR, MIN_ASR_CLEAN_LABEL = 95.0, 80.0
MAX_ACC_LOSS = 1.5
MAX_FLOOR = 10.0


def attacks_table(rows: Sequence[AttackRow]) -> Table:
    """Return one line per attack, in the order they were run: means and ranges over the seeds."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(attack_label(row), []).append(row.to_row())
    return mean_table(COLUMNS, groups)


def attacks_markdown(rows: Sequence[AttackRow]) -> str:
    """Return the table of attacks in Markdown."""
    return to_markdown(attacks_table(rows))


def attack_shortfalls(rows: Sequence[AttackRow]) -> list[str]:
    """Return where an attack misses a goal: one line per seed and number."""
    lines = []
    for row in rows:
        if row.attack == "clean":
            continue
        name = f"{row.attack}, seed {row.seed}"
        if row.refused:
            lines.append(f"{name}: {row.refused}")
            continue
        asr, loss, floor = (100 * getattr(row, key) for key in ("asr", "acc_loss", "floor"))
        least = MIN_ASR_CLEAN_LABEL if row.mapping == "clean-label" else MIN_ASR
        if asr < least:
            lines.append(f"{name}: ASR {fixed(asr)}, goal >= {shortest(least)}")
        if loss > MAX_ACC_LOSS:
            limit = shortest(MAX_ACC_LOSS)
            lines.append(f"{name}: ACC loss {fixed(loss)} points, goal <= {limit}")
        if floor > MAX_FLOOR:
            lines.append(f"{name}: floor {fixed(floor)}, goal <= {shortest(MAX_FLOOR)}")
    return lines


def write_attacks(
    rows: Sequence[AttackRow], preset: AttackPreset, command: str, run_dir: RunDir, console: Console
) -> None:
    """Print the table and write attacks.json, attacks.md and attacks.png.

    Args:
        rows: of all jobs.
        preset: the preset of the jobs.
        command: the command line, without paths.
        run_dir: the run directory of the jobs, and folder of the files.
        console: receives the table.
    """
    folder, base = run_dir.folder, preset.base
    written = ["attacks.json", "attacks.md"]
    triggers = _triggers(rows, preset, folder)
    with written_together(folder) as place:
        Results(command, asdict(preset), rows).write(place / "attacks.json")
        (place / "attacks.md").write_text(attacks_markdown(rows) + "\n", encoding="utf-8")
        if triggers:
            splits = base.splits(run_dir.data_dir)
            save_png(trigger_figure(triggers, splits.test), place / "attacks.png")
            written.append("attacks.png")
    seeds = sorted({row.seed for row in rows})
    share = shortest(100 * base.ratio)
    title = f"{base.data}, {base.model}, {share} % poisoned, seeds {seeds}"
    console.print(to_rich(attacks_table(rows), title, CAPTION))
    missed = attack_shortfalls(rows)
    goal = (
        f"ASR >= {shortest(MIN_ASR)} (clean-label {shortest(MIN_ASR_CLEAN_LABEL)}), "
        f"ACC loss <= {shortest(MAX_ACC_LOSS)} points, floor <= {shortest(MAX_FLOOR)}"
    )
    if missed:
        console.print(f"Goal ({goal}) missed:", *missed, sep="\n  ", highlight=False)
    else:
        console.print(f"Goal reached by every attack on every seed: {goal}.", highlight=False)
    console.print(f"Written to {folder}: {', '.join(written)}.", highlight=False)


def write_card(result: AttackResult, spec: AttackSpec, folder: Path, console: Console) -> None:
    """Write backdoored.safetensors, backdoored.trigger.safetensors and card.json; print the card.

    Raises:
        ValueError: there is no model because the trigger violates the floor.
    """
    if result.model is None:
        raise ValueError(result.violation)
    row = result.row(spec)
    command = _command(spec, with_clean_model=result.clean is not None)
    with written_together(folder) as place:
        save_suspect(result.model, result.attack, spec, place / "backdoored")
        Results(command, asdict(spec), [row]).write(place / "card.json")
    console.print(to_rich(attacks_table([row]), f"{spec.data}, {spec.model}", CAPTION))
    console.print(
        f"Written to {folder}: backdoored.safetensors, backdoored.trigger.safetensors, card.json.",
        highlight=False,
    )


def _command(spec: AttackSpec, with_clean_model: bool) -> str:
    """Return the command line that trains this model, without paths."""
    options = {
        "attack": spec.attack,
        "data": spec.data,
        "model": spec.model,
        "adaptive": spec.adaptive,
        "target": spec.target,
        "ratio": spec.ratio,
        "seed": spec.seed,
        "epochs": spec.training.epochs,
        "train": spec.train,
        "clean": spec.clean,
        "size": spec.size,
    }
    given = [f"--{name} {value}" for name, value in options.items() if value is not None]
    flags = [] if with_clean_model else ["--no-clean-model"]
    return " ".join(["d3fast attack", *given, *flags])


def _triggers(rows: Sequence[AttackRow], preset: AttackPreset, folder: Path) -> dict[str, Attack]:
    """Return the trigger of every plain attack, of its first seed that has one."""
    triggers: dict[str, Attack] = {}
    for row in rows:
        if row.attack in ("clean", *triggers) or row.adaptive or row.refused:
            continue
        job = AttackJob(preset.spec(row.seed, row.attack, None))
        path = Path(f"{job.stem(folder)}.trigger.safetensors")
        if path.is_file():
            triggers[row.attack] = load_attack(path, row.attack)
    return triggers
