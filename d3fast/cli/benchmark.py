# SPDX-License-Identifier: Apache-2.0
"""``d3fast benchmark`` and ``d3fast benchmark attacks``: parses, calls, prints."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from d3fast.benchmark import presets
from d3fast.benchmark.attack_jobs import PRESETS, parse_attacks, run_attacks
from d3fast.benchmark.grid import run_grid
from d3fast.benchmark.plan import GridPreset, changed_suspects, chosen_repairs
from d3fast.benchmark.report.attacks import write_attacks
from d3fast.benchmark.report.benchmark import write_benchmark
from d3fast.cli import options
from d3fast.data import DATASETS
from d3fast.io.files import folder
from d3fast.results.engine import Place
from d3fast.runtime import environment
from d3fast.runtime.checks import check_choice
from d3fast.runtime.devices import resolve_device

benchmark = typer.Typer(no_args_is_help=True, invoke_without_command=True)


def _place(out: Path, device: str, data_dir: Path | None, workers: int | None) -> tuple[Place, int]:
    """Where to run, and how many processes."""
    where = resolve_device(device)
    on_cpu = where.type == "cpu"
    torch.set_num_threads(1 if on_cpu else torch.get_num_threads())
    beside = workers or (environment.cores() if on_cpu else 1)
    return Place(folder(out), str(where), data_dir), beside


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, slash, of = text.partition("/")
    if not (slash and number.strip().isdecimal() and of.strip().isdecimal()):
        raise ValueError(f"part must be I/N, as in 1/4, got {text!r}")
    return int(number), int(of)


def _chosen(
    preset: str,
    attacks: str | None,
    defenses: str | None,
    data: str | None,
    model: str | None,
    ablations: bool,
    relearning: bool,
) -> GridPreset:
    check_choice("preset", preset, presets.PRESETS)
    chosen = presets.PRESETS[preset]
    if data is not None:
        check_choice("data", data, DATASETS)
    if defenses is not None:
        chosen = chosen_repairs(chosen, [label.strip() for label in defenses.split(",")])
    names = None if attacks is None else parse_attacks(attacks)
    chosen = changed_suspects(chosen, attacks=names, data=data, model=model)
    return replace(
        chosen,
        ablations=chosen.ablations if ablations else (),
        relearning=chosen.relearning if relearning else (),
    )


def _refuse_options(context: typer.Context) -> None:
    """An option in front of a sub-command would be ignored without a word."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must stand behind {context.invoked_subcommand}")


@benchmark.callback()
def _benchmark(
    context: typer.Context,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(presets.PRESETS)}.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of the cells; a second run goes on.")] = Path(
        "runs/benchmark"
    ),
    attacks: options.Attacks = None,
    defenses: Annotated[
        str | None, typer.Option(help="Some defences only, comma-separated.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Another data set than the preset's.")] = None,
    model: Annotated[str | None, typer.Option(help="Another model than the preset's.")] = None,
    seeds: options.Seeds = None,
    first_seed: options.FirstSeed = 0,
    ablations: Annotated[bool, typer.Option(help="Run the preset's ablations.")] = True,
    relearning: Annotated[bool, typer.Option(help="Run the relearning test.")] = True,
    part: Annotated[
        str | None, typer.Option(metavar="I/N", help="Every N-th suspect alone, from the I-th on.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no cell after so many minutes.")
    ] = None,
    workers: options.Workers = None,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    progress: options.Progress = True,
) -> None:
    """Attacks x defences x seeds beside clean twins: tables and pictures. Resumable.

    A second run of the same command goes on where the first one stopped.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    chosen = _chosen(preset, attacks, defenses, data, model, ablations, relearning)
    share = _part(part)
    place, beside = _place(out, device, data_dir, workers)
    count = seeds or chosen.seeds
    outcome = run_grid(
        chosen,
        place,
        seeds=range(first_seed, first_seed + count),
        workers=beside,
        part=share,
        minutes=minutes,
        progress=progress,
    )
    command = f"d3fast benchmark --preset {preset} --seeds {count}"
    command += f" --first-seed {first_seed}" if first_seed else ""
    said = {"attacks": attacks, "defenses": defenses, "data": data, "model": model}
    command += "".join(f" --{name} {value}" for name, value in said.items() if value)
    command += "" if ablations else " --no-ablations"
    command += "" if relearning else " --no-relearning"
    console = Console()
    if outcome.rows:
        write_benchmark(outcome.rows, chosen, command, place.folder, console, outcome.missing)
    else:
        console.print(f"No cell was begun, {outcome.missing} are left.", highlight=False)


@benchmark.command("attacks")
def _benchmark_attacks(
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(PRESETS)}.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder of the cells; a second run goes on.")] = Path(
        "runs/attacks"
    ),
    attacks: options.Attacks = None,
    seeds: options.Seeds = None,
    first_seed: options.FirstSeed = 0,
    workers: options.Workers = None,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
    progress: options.Progress = True,
) -> None:
    """Train every attack beside its clean twin: ACC, ASR, RA, floor and pictures."""
    check_choice("preset", preset, PRESETS)
    chosen = PRESETS[preset]
    if attacks is not None:
        chosen = replace(chosen, attacks=parse_attacks(attacks))
    place, beside = _place(out, device, data_dir, workers)
    count = seeds or chosen.seeds
    rows = run_attacks(
        chosen,
        place,
        seeds=range(first_seed, first_seed + count),
        workers=beside,
        progress=progress,
    )
    command = f"d3fast benchmark attacks --preset {preset} --seeds {count}"
    command += f" --first-seed {first_seed}" if first_seed else ""
    command += f" --attacks {attacks}" if attacks else ""
    write_attacks(rows, chosen, command, place, Console())
