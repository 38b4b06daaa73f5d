# SPDX-License-Identifier: Apache-2.0
"""``d3fast pilot``: parses, calls, prints."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from d3fast.attacks import load_attack
from d3fast.audit.pilot import Pilot, PilotOptions, run_pilot
from d3fast.audit.report.pilot import CONFIG, print_pilot, write_pilot
from d3fast.audit.resolve import PILOT, Audit, open_audit
from d3fast.cli import options
from d3fast.detox import D3Config
from d3fast.io.files import make_folder
from d3fast.runtime.processes import parse_devices


def _command(case: Audit, chosen: PilotOptions, trigger: Path | None) -> str:
    command = (
        f"d3fast pilot --model {case.spec} --trials {chosen.trials} --epochs {chosen.epochs} "
        f"--max-acc-drop {chosen.max_acc_drop:g} --seed {case.seed}"
    )
    return command + ("" if trigger is None else f" --trigger {trigger.name}")


def _next(given: dict[str, Any], out: Path) -> str:
    """The command line that repairs with what is recommended."""
    parts = ["d3fast", "detox"]
    for name, value in {**given, "config": out / CONFIG, "out": out}.items():
        if value is not None:
            parts += [f"--{name}", str(value)]
    return shlex.join(parts)


def pilot(
    checkpoint: options.Checkpoint,
    data: options.Clean,
    model: options.Model = "preact_resnet_narrow",
    trigger: Annotated[
        Path | None,
        typer.Option(help="A saved trigger, if you have one: measured, and for the advice."),
    ] = None,
    out: options.Out = options.CASE,
    trials: Annotated[
        int, typer.Option(min=1, help="Settings to begin with.")
    ] = PilotOptions.trials,
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of the last, longest trials.")
    ] = PilotOptions.epochs,
    max_acc_drop: Annotated[
        float, typer.Option(help="Points of held-out accuracy that a repair may cost.")
    ] = PilotOptions.max_acc_drop,
    size: options.Size = None,
    classes: options.Classes = None,
    devices: Annotated[
        str, typer.Option(help="One worker each: auto, cpu, cpu:2, cuda:0,cuda:1, ...")
    ] = "auto",
    seed: options.Seed = 0,
    progress: options.Progress = True,
) -> None:
    """Which repair to choose: short ones over a grid of settings, compared on held-out samples."""
    chosen = PilotOptions(trials=trials, epochs=epochs, max_acc_drop=max_acc_drop)
    base, workers = (
        D3Config.auto(seed=seed, max_acc_drop=max_acc_drop),
        parse_devices(devices)[:trials],
    )
    case = open_audit(model, checkpoint, data, size=size, classes=classes, device="cpu", seed=seed)
    attack = None if trigger is None else load_attack(trigger)
    repair, held_out = case.parts()
    place, console = make_folder(out), Console()
    settings = {
        **case.settings(),
        "devices": workers,
        "trigger": None if trigger is None else trigger.name,
        "repair_samples": len(repair),
        "held_out_samples": len(held_out),
    }
    done: list[Pilot] = []

    def keep(so_far: Pilot) -> None:
        write_pilot(so_far, chosen, settings, _command(case, chosen, trigger), place)
        done.append(so_far)

    try:
        found = run_pilot(
            case.model,
            repair,
            held_out,
            options=chosen,
            base=base,
            attack=attack,
            devices=workers,
            progress=progress,
            on_rung=keep,
        )
    except KeyboardInterrupt:
        if done:
            console.print(
                f"{done[-1].done} of {len(done[-1].rungs)} rungs are in {place / PILOT}.",
                highlight=False,
                markup=False,
            )
        raise
    print_pilot(found, console)
    given = {
        "model": model,
        "checkpoint": checkpoint,
        "data": data,
        "size": size,
        "classes": classes,
        "seed": seed or None,
    }
    console.print(
        f"Go on with: {_next(given, place)}", highlight=False, markup=False, soft_wrap=True
    )
    console.print(f"Written to {place}: {PILOT}, {CONFIG}.", highlight=False, markup=False)
