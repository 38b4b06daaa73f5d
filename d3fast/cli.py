# SPDX-License-Identifier: Apache-2.0
"""The command line ``d3fast``: parses, calls, prints. Nothing is computed here.

Exit codes: 0 done, 1 a defect in d3fast (with a traceback), 2 input that cannot be used (one line).
Ctrl-C ends it by SIGINT, 130 to a shell.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from typer.core import TyperGroup

from d3fast import __version__, demo, environment
from d3fast.attacks import ADAPTIVE, ATTACKS, TrainConfig
from d3fast.cli_benchmark import benchmark
from d3fast.cli_spectrum import spectrum
from d3fast.data import DATASETS
from d3fast.devices import resolve_device
from d3fast.files import folder
from d3fast.implant import Implant, implant, measure
from d3fast.report.attacks import write_card
from d3fast.report.demo import write_report


class _OneLineErrors(TyperGroup):
    """Turns what is wrong with the input into one line; a defect keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (ValueError, OSError) as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            # Ended by the signal itself: a shell reports 130 and stops the loop around this.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)


app = typer.Typer(
    cls=_OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Repair neural networks that may carry a backdoor (D3, arXiv 2411.09585).",
)

Data = Enum("Data", {name: name for name in demo.SETUPS})  # type: ignore[misc]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"d3fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    # Appended: a file beside a suspect checkpoint must not pass for an installed package.
    sys.path.append(os.getcwd())


@app.command("demo")
def _demo(
    data: Annotated[Data, typer.Option(help="Data set.")] = Data.digits,  # type: ignore[attr-defined]
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the data set's files, where it has files.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for models, results and picture.")] = Path(
        "runs/demo"
    ),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Implant a backdoor, repair the model by D3 and by fine-tuning, print the table."""
    where = folder(out)
    # Layers this small gain little from a second thread, and on busy cores wait long for it.
    torch.set_num_threads(1)
    setup = demo.SETUPS[data.value]
    options = ["--data", data.value, "--seeds", str(seeds), "--first-seed", str(first_seed)]
    runs = [
        demo.run_seed(setup, seed, data_dir=data_dir, device=device, progress=progress)
        for seed in range(first_seed, first_seed + seeds)
    ]
    write_report(runs, setup, "d3fast demo " + " ".join(options), where, Console())


@app.command("attack")
def _attack(
    attack: Annotated[str, typer.Option(help=f"One of {', '.join(ATTACKS)}.")],
    data: Annotated[str, typer.Option(help=f"One of {', '.join(DATASETS)}.")] = "digits",
    model: Annotated[
        str,
        typer.Option(help="A model of d3fast (docs/data.md lists them) or package.module:factory."),
    ] = "preact_resnet_narrow",
    out: Annotated[Path, typer.Option(help="Folder for model, trigger and card.")] = Path(
        "runs/attack"
    ),
    adaptive: Annotated[
        str | None, typer.Option(help=f"Adaptive attacker around it: {', '.join(ADAPTIVE)}.")
    ] = None,
    target: Annotated[
        int | None, typer.Option(min=0, help="Target class; chosen per data set by default.")
    ] = None,
    ratio: Annotated[float, typer.Option(help="Share of the training set to poison.")] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training set.")] = 20,
    train: Annotated[
        int | None, typer.Option(min=1, help="Training images; all that are left by default.")
    ] = None,
    clean: Annotated[int, typer.Option(min=0, help="Images kept aside for a defender.")] = 260,
    size: Annotated[
        int | None, typer.Option(min=1, help="Side that image files are stretched to.")
    ] = None,
    twin: Annotated[
        bool, typer.Option(help="Train a clean twin too, for the floor of the ASR.")
    ] = True,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder or file of the data set, where it has any.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Make a backdoored checkpoint with its trigger and a card that says how good it is."""
    spec = Implant(
        data=data, model=model, attack=attack, adaptive=adaptive, target=target, ratio=ratio,
        seed=seed, train=train, clean=clean, size=size,
        training=TrainConfig(epochs=epochs),
    )  # fmt: skip
    place, on = folder(out), resolve_device(device)
    splits = spec.splits(data_dir).to(on)
    alone = replace(spec, attack=None, adaptive=None, target=None)
    clean_twin = implant(alone, splits, None, device=on, progress=progress)[0] if twin else None
    made = measure(spec, splits, clean_twin, device=on, progress=progress)
    write_card(*made, spec, place, Console())


app.add_typer(benchmark, name="benchmark")
app.command("spectrum")(spectrum)


@app.command("env")
def _env(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what was built and what it runs on."""
    facts = environment.describe()
    if as_json:
        typer.echo(json.dumps(dict(facts), indent=2))
        return
    width = max(len(label) for label, _ in facts)
    for label, value in facts:
        typer.echo(f"{label:<{width}}  {value}")
