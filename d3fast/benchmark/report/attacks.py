# SPDX-License-Identifier: Apache-2.0
"""What a benchmark of attacks prints and leaves behind: a table, a verdict, pictures, JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from d3fast.attacks import Attack, load_attack
from d3fast.benchmark.attack_jobs import AttackJob, Preset
from d3fast.benchmark.implant import Implant, save_implant
from d3fast.benchmark.report.trigger_plot import trigger_figure
from d3fast.results.jobs import Row, RunDir
from d3fast.results.plot import save_png
from d3fast.results.store import Results
from d3fast.results.table import Column, mean_table, to_markdown, to_rich

COLUMNS = (
    Column("acc", "ACC %", scale=100),
    Column("acc_loss", "ACC loss", scale=100),
    Column("asr", "ASR %", scale=100),
    Column("floor", "floor", scale=100),
    Column("ra", "RA %", scale=100),
    Column("ra_ceiling", "ceiling", scale=100),
)
CAPTION = (
    "ASR: triggered images of other classes answered with what the attacker wants. Floor: the same "
    "of the clean twin, a model never poisoned. ACC loss: against that twin. RA: triggered images "
    "answered correctly; ceiling: the same of the clean twin."
)
# What an attack has to reach on every seed, in points; clean-label attacks have it harder.
MIN_ASR, MIN_ASR_CLEAN_LABEL = 95.0, 80.0
MAX_ACC_LOSS = 1.5
MAX_FLOOR = 10.0


def by_attack(rows: Sequence[Row]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of all seeds by the attack's name, in the order they were run."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        adaptive = f" ({row['adaptive']})" if row["adaptive"] else ""
        groups.setdefault(row["attack"] + adaptive, []).append(row)
    return groups


def attacks_markdown(rows: Sequence[Row]) -> str:
    """The table of attacks in Markdown."""
    return to_markdown(mean_table(COLUMNS, by_attack(rows)))


def attack_shortfalls(rows: Sequence[Row]) -> list[str]:
    """Where an attack misses what it has to reach: one line per seed and number."""
    lines = []
    for row in rows:
        if row["attack"] == "clean":
            continue
        who = f"{row['attack']}, seed {row['seed']}"
        if row.get("refused"):
            lines.append(f"{who}: {row['refused']}")
            continue
        asr, loss, floor = (100 * row[key] for key in ("asr", "acc_loss", "floor"))
        least = MIN_ASR_CLEAN_LABEL if row["mapping"] == "clean-label" else MIN_ASR
        if asr < least:
            lines.append(f"{who}: ASR {asr:.1f}, goal >= {least:g}")
        if loss > MAX_ACC_LOSS:
            lines.append(f"{who}: ACC loss {loss:.1f} points, goal <= {MAX_ACC_LOSS:g}")
        if floor > MAX_FLOOR:
            lines.append(f"{who}: floor {floor:.1f}, goal <= {MAX_FLOOR:g}")
    return lines


def write_attacks(
    rows: Sequence[Row], preset: Preset, command: str, run_dir: RunDir, console: Console
) -> None:
    """Print the table and write attacks.json, attacks.md and attacks.png.

    Args:
        rows: of all jobs.
        preset: what was run.
        command: the command line, without paths.
        run_dir: where the jobs are, and the files go.
        console: where the table goes.
    """
    groups = by_attack(rows)
    seeds = sorted({row["seed"] for row in rows})
    twin = preset.twin
    title = f"{twin.data}, {twin.model}, {100 * twin.ratio:g} % poisoned, seeds {seeds}"
    Results(command, asdict(preset), rows).write(run_dir.folder / "attacks.json")
    (run_dir.folder / "attacks.md").write_text(attacks_markdown(rows) + "\n", encoding="utf-8")
    written = ["attacks.json", "attacks.md"]
    shown = _triggers(rows, preset, run_dir)
    if shown:
        splits = twin.splits(run_dir.data_dir)
        save_png(trigger_figure(shown, splits.test), run_dir.folder / "attacks.png")
        written.append("attacks.png")
    console.print(to_rich(mean_table(COLUMNS, groups), title, CAPTION))
    missed = attack_shortfalls(rows)
    goal = (
        f"ASR >= {MIN_ASR:g} (clean-label {MIN_ASR_CLEAN_LABEL:g}), ACC loss <= "
        f"{MAX_ACC_LOSS:g} points, floor <= {MAX_FLOOR:g}"
    )
    if missed:
        console.print(f"Goal ({goal}) missed:", *missed, sep="\n  ", highlight=False)
    else:
        console.print(f"Goal reached by every attack on every seed: {goal}.", highlight=False)
    console.print(f"Written to {run_dir.folder}: {', '.join(written)}.", highlight=False)


def write_card(
    model: nn.Module | None,
    attack: Attack,
    row: Row,
    spec: Implant,
    folder: Path,
    console: Console,
) -> None:
    """Write backdoored.safetensors, backdoored.trigger.safetensors and card.json, and print it.

    Raises:
        ValueError: the trigger was refused: there is no model.
    """
    if model is None:
        raise ValueError(row["refused"])
    save_implant(model, attack, spec, folder / "backdoored")
    Results(_command(spec, "floor" in row), asdict(spec), [row]).write(folder / "card.json")
    console.print(
        to_rich(mean_table(COLUMNS, by_attack([row])), f"{spec.data}, {spec.model}", CAPTION)
    )
    console.print(
        f"Written to {folder}: backdoored.safetensors, backdoored.trigger.safetensors, card.json.",
        highlight=False,
    )


def _command(spec: Implant, twin: bool) -> str:
    """What to type for this model, without paths."""
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
    said = [f"--{name} {value}" for name, value in options.items() if value is not None]
    return " ".join(["d3fast attack", *said, *([] if twin else ["--no-twin"])])


def _triggers(rows: Sequence[Row], preset: Preset, run_dir: RunDir) -> dict[str, Any]:
    """The trigger of every attack, as the first seed has it."""
    shown: dict[str, Any] = {}
    for row in rows:
        if row["attack"] in ("clean", *shown) or row["adaptive"] or row.get("refused"):
            continue
        job = AttackJob(preset.spec(row["seed"], row["attack"], None))
        path = Path(f"{job.stem(run_dir.folder)}.trigger.safetensors")
        if path.is_file():
            shown[row["attack"]] = load_attack(path)
    return shown
