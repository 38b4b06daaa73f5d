# SPDX-License-Identifier: Apache-2.0
"""``d3fast benchmark`` and ``d3fast benchmark attacks``: parse options, run, write tables."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from d3fast.benchmark.attack_jobs import ATTACK_PRESETS, parse_attacks, run_attacks
from d3fast.benchmark.clean_shift import CORRUPTIONS, CleanShift
from d3fast.benchmark.grid import run_grid
from d3fast.benchmark.plan import BenchmarkPreset, replace_suspects, select_defenses
from d3fast.benchmark.presets import BENCHMARK_PRESETS
from d3fast.benchmark.report.attacks import write_attacks
from d3fast.benchmark.report.benchmark import write_benchmark
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.groups import with_groups
from d3fast.cli.output import Output
from d3fast.data import DATASETS
from d3fast.integrations.epoch_log import parse_trackers
from d3fast.io.files import make_folder
from d3fast.results.engines import EngineChoice
from d3fast.results.jobs import RunDir
from d3fast.runtime import environment
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.runtime.devices import resolve_device

benchmark = typer.Typer(no_args_is_help=True, invoke_without_command=True)


def _devices(
    engine: EngineChoice, devices: str, device: str | None, workers: int | None
) -> list[str]:
    """Return the device of every worker; ``--device`` and ``--workers`` are deprecated."""
    if device is None and workers is None:
        return engine.parse_devices(devices, environment.cores())
    typer.echo("warning: --device and --workers are now --devices", err=True)
    chosen = resolve_device(device or "auto")
    return [str(chosen)] * (workers or (environment.cores() if chosen.type == "cpu" else 1))


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
    reactivation: bool,
) -> BenchmarkPreset:
    check_choice("preset", preset, BENCHMARK_PRESETS)
    chosen = BENCHMARK_PRESETS[preset]
    if data is not None:
        DATASETS.find(data)
    if defenses is not None:
        chosen = select_defenses(chosen, [label.strip() for label in defenses.split(",")])
    names = None if attacks is None else parse_attacks(attacks)
    chosen = replace_suspects(chosen, attacks=names, data=data, model=model)
    return replace(
        chosen,
        ablations=chosen.ablations if ablations else (),
        relearning=chosen.relearning if relearning else (),
        reactivation=chosen.reactivation if reactivation else (),
    )


def _with_samples(
    preset: BenchmarkPreset, clean: int | None, rare_class: int | None, corruption: str | None
) -> BenchmarkPreset:
    """Return the preset with other clean samples of every defender."""
    if clean is not None:
        check_integer("clean", clean, 1)
        preset = replace(preset, clean=clean)
    if rare_class is None and corruption is None:
        return preset
    return replace(preset, shift=CleanShift(rare_class, corruption))


def _poisoned(preset: BenchmarkPreset, ratio: float | None, mapping: str | None) -> BenchmarkPreset:
    """Return the preset with another poison ratio or mapping; models never poisoned stay."""
    if ratio is not None and not 0 < ratio < 1:
        raise ValueError(f"ratio must be in (0, 1), got {ratio}")
    given = {"ratio": ratio, "mapping": mapping}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    suspects = tuple(
        replace(group, base=replace(group.base, **changes)) if group.base.ratio else group
        for group in preset.suspects
    )
    return replace(preset, suspects=suspects)


def _refuse_options(context: typer.Context) -> None:
    """Refuse options before a sub-command, which would ignore them."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = name.replace("_", "-")
            raise ValueError(f"--{option} must come after {context.invoked_subcommand}")


@benchmark.callback()
@with_groups
def _benchmark(
    context: typer.Context,
    where: options.EngineOptions,
    config: ConfigFile,
    output: Output,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(BENCHMARK_PRESETS)}.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Run directory; a second run continues there.")] = Path(
        "runs/benchmark"
    ),
    attacks: options.Attacks = None,
    defenses: Annotated[
        str | None,
        typer.Option(help="Run only these defences, comma-separated; also package.module:Name."),
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set in place of the preset's.")] = None,
    data: options.Deprecated = None,
    model: Annotated[str | None, typer.Option(help="Model in place of the preset's.")] = None,
    seeds: options.Seeds = None,
    first_seed: options.FirstSeed = 0,
    ablations: Annotated[bool, typer.Option(help="Run the preset's ablations.")] = True,
    relearning: Annotated[bool, typer.Option(help="Run the relearning test.")] = True,
    reactivation: Annotated[bool, typer.Option(help="Run the re-activation test.")] = True,
    ratio: Annotated[
        float | None, typer.Option(help="Poison ratio in place of the preset's.")
    ] = None,
    mapping: options.LabelMapping = None,
    clean: Annotated[
        int | None, typer.Option(help="Clean samples of a defender in place of the preset's.")
    ] = None,
    rare_class: Annotated[
        int | None, typer.Option(help="Class of which a defender has a tenth of its samples.")
    ] = None,
    corruption: Annotated[
        str | None,
        typer.Option(help=f"Corrupt a defender's samples: {', '.join(CORRUPTIONS)}."),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Run the I-th of N parts of the suspects."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Start no job after so many minutes.")
    ] = None,
    devices: options.Devices = "auto",
    store: options.Store = None,
    device: options.Deprecated = None,
    workers: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    data_dir: options.DataDir = None,
    log: options.Log = None,
) -> None:
    """Run attacks x defences x seeds beside clean models; write tables and figures.

    A second run of the same command continues where the first one stopped.
    """
    if context.invoked_subcommand is not None:
        _refuse_options(context)
        return
    dataset = options.renamed("--data", "--dataset", data, dataset)
    chosen = _chosen(preset, attacks, defenses, dataset, model, ablations, relearning, reactivation)
    chosen = _with_samples(_poisoned(chosen, ratio, mapping), clean, rare_class, corruption)
    share = _part(part)
    engine, trackers = where.choice(store), parse_trackers(log)
    used = _devices(engine, devices, device, workers)
    run_dir = RunDir(make_folder(out), data_dir=data_dir, log=trackers)
    count = seeds or chosen.seeds
    result = run_grid(
        chosen,
        run_dir,
        seeds=range(first_seed, first_seed + count),
        devices=used,
        engine=engine,
        part=share,
        minutes=minutes,
        progress=output.bars,
    )
    command = f"d3fast benchmark --preset {preset} --seeds {count}"
    command += f" --first-seed {first_seed}" if first_seed else ""
    said: dict[str, str | float | None]
    said = {"attacks": attacks, "defenses": defenses, "dataset": dataset, "model": model}
    said |= {
        "ratio": ratio,
        "mapping": mapping,
        "clean": clean,
        "rare-class": rare_class,
        "corruption": corruption,
    }
    command += "".join(f" --{name} {value}" for name, value in said.items() if value is not None)
    command += "" if ablations else " --no-ablations"
    command += "" if relearning else " --no-relearning"
    command += "" if reactivation else " --no-reactivation"
    console = output.console
    if result.rows:
        write_benchmark(result.rows, chosen, command, run_dir.folder, console, result.missing)
        output.document(run_dir.folder / "table.json")
    else:
        output.say(f"No job was started; {result.missing} are left.")


@benchmark.command("attacks")
@with_groups
def _benchmark_attacks(
    where: options.EngineOptions,
    config: ConfigFile,
    output: Output,
    preset: Annotated[str, typer.Option(help=f"One of {', '.join(ATTACK_PRESETS)}.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Run directory; a second run continues there.")] = Path(
        "runs/attacks"
    ),
    attacks: options.Attacks = None,
    seeds: options.Seeds = None,
    first_seed: options.FirstSeed = 0,
    devices: options.Devices = "auto",
    store: options.Store = None,
    device: options.Deprecated = None,
    workers: Annotated[int | None, typer.Option(min=1, hidden=True)] = None,
    data_dir: options.DataDir = None,
) -> None:
    """Train every attack beside its clean model: ACC, ASR, RA, floor and images."""
    check_choice("preset", preset, ATTACK_PRESETS)
    chosen = ATTACK_PRESETS[preset]
    if attacks is not None:
        chosen = replace(chosen, attacks=parse_attacks(attacks))
    engine = where.choice(store)
    used = _devices(engine, devices, device, workers)
    run_dir = RunDir(make_folder(out), data_dir=data_dir)
    count = seeds or chosen.seeds
    rows = run_attacks(
        chosen,
        run_dir,
        seeds=range(first_seed, first_seed + count),
        devices=used,
        engine=engine,
        progress=output.bars,
    )
    command = f"d3fast benchmark attacks --preset {preset} --seeds {count}"
    command += f" --first-seed {first_seed}" if first_seed else ""
    command += f" --attacks {attacks}" if attacks else ""
    write_attacks(rows, chosen, command, run_dir, output.console)
    output.document(run_dir.folder / "attacks.json")
