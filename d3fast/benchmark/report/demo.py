# SPDX-License-Identifier: Apache-2.0
"""What the demonstration prints and leaves behind: a table, a verdict, a picture, JSON, models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from d3fast.attacks import ATTACKS
from d3fast.attacks.files import option_values, save_attack
from d3fast.benchmark.demo import (
    BACKDOORED,
    FINE_TUNED,
    MAX_ACC_LOSS,
    MAX_ASR_EXCESS,
    REPAIRED,
    SeedRun,
    Setup,
    shortfalls,
)
from d3fast.benchmark.report.demo_plot import demo_figure
from d3fast.data import save_samples
from d3fast.detox import save_weights
from d3fast.results.plot import save_png
from d3fast.results.store import Results
from d3fast.results.table import Column, mean_table, to_markdown, to_rich

COLUMNS = (
    Column("acc", "ACC %", scale=100),
    Column("asr", "ASR %", scale=100),
    Column("floor", "floor", scale=100),
    Column("ra", "RA %", scale=100),
    Column("der", "DER", digits=0, scale=100),
    Column("distance", "dist.", digits=2),
    Column("seconds", "sec", digits=0),
)
CAPTION = (
    "ASR: triggered images of other classes answered with the target. Floor: the same of its clean "
    "twin, a model never poisoned. RA: triggered images answered correctly. "
    "Dist.: how far the weights that D3 tracks went, in units of their norm. Sec: seconds of the "
    "training or repair alone."
)


def _title(setup: Setup, seeds: str) -> str:
    options = asdict(setup.attack)  # type: ignore[call-overload]
    size = options.get("size")
    attack = type(setup.attack).__name__ + (f" {size}x{size} patch" if size else "")
    return (
        f"{setup.data}, {attack}, {100 * setup.ratio:g} % poisoned, "
        f"{setup.clean} clean samples, {seeds}"
    )


def by_model(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows of all seeds by the model they measure, in the order the models were made."""
    names = dict.fromkeys(row["model"] for row in rows)
    return {name: [row for row in rows if row["model"] == name] for name in names}


def demo_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of the demonstration in Markdown."""
    return to_markdown(mean_table(COLUMNS, by_model(rows)))


def print_table(rows: Sequence[Mapping[str, Any]], title: str, console: Console) -> None:
    """Print means and ranges over the seeds, and whether D3 reached its goal."""
    console.print(to_rich(mean_table(COLUMNS, by_model(rows)), title, CAPTION))
    missed = shortfalls(rows)
    goal = f"ASR excess <= {MAX_ASR_EXCESS:g} points and ACC loss <= {MAX_ACC_LOSS:g} points"
    if missed:
        console.print(f"Goal of D3 ({goal}) missed:", *missed, sep="\n  ", highlight=False)
    else:
        console.print(f"Goal of D3 reached on every seed: {goal}.", highlight=False)


def write_report(
    runs: Sequence[SeedRun], setup: Setup, command: str, folder: Path, console: Console
) -> None:
    """Print the table; write results.json, demo.png, and what the first seed's repairs were given.

    Args:
        runs: one per seed.
        setup: what was done.
        command: the command line, without paths.
        folder: where the files go; it exists.
        console: where the table goes.
    """
    first = runs[0]
    save_weights(first.models[BACKDOORED], folder / "backdoored.safetensors")
    save_weights(first.models[REPAIRED], folder / "repaired.safetensors", first.d3)
    save_weights(first.models[FINE_TUNED], folder / "fine-tuned.safetensors")
    name = next(name for name, kind in ATTACKS.items() if kind is type(setup.attack))
    save_attack(setup.attack, folder / "backdoored.trigger.safetensors", name)
    settings: dict[str, Any] = {
        **asdict(setup),
        "attack": {"name": type(setup.attack).__name__, **option_values(setup.attack)},
    }
    save_samples(first.clean, folder / "clean.npz")
    rows = [row for run in runs for row in run.rows]
    Results(command, settings, rows).write(folder / "results.json")
    title = _title(setup, f"seed {first.seed}")
    save_png(demo_figure(first, title), folder / "demo.png")
    seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
    print_table(rows, _title(setup, seeds), console)
    console.print(
        f"Written to {folder}: demo.png, results.json, and of the first seed "
        "backdoored.safetensors, backdoored.trigger.safetensors, clean.npz, "
        "fine-tuned.safetensors, repaired.safetensors.",
        highlight=False,
    )
