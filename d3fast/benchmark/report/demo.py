# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast demo``: a table, the goal, a picture, JSON, models."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from d3fast.attacks import ATTACKS, Attack
from d3fast.attacks.files import option_values, save_attack
from d3fast.benchmark.demo import (
    BACKDOORED,
    MAX_ACC_LOSS,
    MAX_LIFT,
    DemoRun,
    shortfalls,
)
from d3fast.benchmark.labels import CLEAN_MODEL
from d3fast.benchmark.plan import BenchmarkPreset
from d3fast.benchmark.presets import FINE_TUNED, REPAIRED
from d3fast.benchmark.report.demo_plot import demo_figure
from d3fast.data import save_samples
from d3fast.detox import save_weights
from d3fast.io.files import written_together
from d3fast.results.format import count, shortest
from d3fast.results.plot import save_png
from d3fast.results.schema.benchmark import DemoRow
from d3fast.results.store import Results
from d3fast.results.table import Column, Row, Table, mean_table, to_markdown, to_rich

COLUMNS = (
    Column("acc", "ACC %", scale=100),
    Column("asr", "ASR %", scale=100),
    Column("floor", "floor", scale=100),
    Column("lift", "lift", scale=100),
    Column("ra", "RA %", scale=100),
    Column("der", "DER", digits=0, scale=100),
    Column("distance", "dist.", digits=2),
    Column("seconds", "sec", digits=0),
)
CAPTION = (
    "ASR: triggered images of other classes classified as the target. Floor: ASR of the clean "
    "model, trained without poisoned samples. Lift: ASR minus the share of the same images that "
    "the same model classifies as the target without the trigger. RA: triggered images classified "
    "correctly. Dist.: distance of the weights that D3 tracks, relative to their norm. Sec: "
    "seconds of the training or repair alone."
)


def _title(preset: BenchmarkPreset, attack: Attack, seeds: str) -> str:
    base = preset.suspects[0].base
    size = option_values(attack).get("size")
    name = type(attack).__name__ + (f" {size}x{size} patch" if size else "")
    share = shortest(100 * base.ratio)
    return f"{base.data}, {name}, {share} % poisoned, {preset.clean} clean samples, {seeds}"


def demo_table(rows: Sequence[DemoRow]) -> Table:
    """Return one line per model, in the order of training: means and ranges over the seeds."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        label = CLEAN_MODEL if row.model == "clean twin" else row.model  # in files of release 0.1
        groups.setdefault(label, []).append(row.to_row())
    return mean_table(COLUMNS, groups)


def demo_markdown(rows: Sequence[DemoRow]) -> str:
    """Return the table of the demo in Markdown."""
    return to_markdown(demo_table(rows))


def print_table(rows: Sequence[DemoRow], title: str, console: Console) -> None:
    """Print means and ranges over the seeds, and the outcome of the goal of D3."""
    console.print(to_rich(demo_table(rows), title, CAPTION))
    missed = shortfalls(rows)
    lift, loss = shortest(MAX_LIFT), shortest(MAX_ACC_LOSS)
    goal = f"lift <= {lift} points and ACC loss <= {loss} points"
    if missed:
        console.print(f"Goal of D3 ({goal}) missed:", *missed, sep="\n  ", highlight=False)
    else:
        console.print(f"Goal of D3 reached on every seed: {goal}.", highlight=False)


def write_report(
    runs: Sequence[DemoRun], preset: BenchmarkPreset, command: str, folder: Path, console: Console
) -> None:
    """Print the table; write results.json, demo.png, and models and samples of the first seed.

    Args:
        runs: one per seed.
        preset: the preset of the runs.
        command: the command line, without paths.
        folder: of the files; it is made.
        console: receives the table.
    """
    first = runs[0]
    name = next(name for name, kind in ATTACKS.builtin.items() if kind is type(first.attack))
    attack = {"name": type(first.attack).__name__, **option_values(first.attack)}
    rows = [row for run in runs for row in run.rows]
    title = _title(preset, first.attack, f"seed {first.seed}")
    with written_together(folder) as place:
        save_weights(first.models[BACKDOORED], place / "backdoored.safetensors")
        save_weights(first.models[REPAIRED], place / "repaired.safetensors", first.d3)
        save_weights(first.models[FINE_TUNED], place / "fine-tuned.safetensors")
        save_attack(first.attack, place / "backdoored.trigger.safetensors", name)
        save_samples(first.clean, place / "clean.npz")
        Results(command, {**asdict(preset), "attack": attack}, rows).write(place / "results.json")
        save_png(demo_figure(first, title), place / "demo.png")
    print_table(rows, _title(preset, first.attack, count(len(runs), "seed")), console)
    console.print(
        f"Written to {folder}: demo.png, results.json, and of the first seed "
        "backdoored.safetensors, backdoored.trigger.safetensors, clean.npz, "
        "fine-tuned.safetensors, repaired.safetensors.",
        highlight=False,
    )
