# SPDX-License-Identifier: Apache-2.0
"""``d3fast pilot``: parse options, run the pilot, print it and write pilot.json, pilot.toml."""

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
from d3fast.runtime.processes import parse_devices


def _command(audit: Audit, chosen: PilotOptions, trigger: Path | None) -> str:
    command = (
        f"d3fast pilot --model {audit.spec} --trials {chosen.trials} --epochs {chosen.epochs} "
        f"--max-acc-drop {chosen.max_acc_drop:g} --seed {audit.seed}"
    )
    return command + ("" if trigger is None else f" --trigger {trigger.name}")


def _next(given: dict[str, Any], out: Path) -> str:
    """Return the command line of a repair with the recommended setting."""
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
        typer.Option(help="A known trigger: measured, and used in the recommendation."),
    ] = None,
    out: options.Out = options.AUDIT,
    trials: Annotated[
        int, typer.Option(min=1, help="Number of settings in the first rung.")
    ] = PilotOptions.trials,
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of a trial in the last rung.")
    ] = PilotOptions.epochs,
    max_acc_drop: Annotated[
        float, typer.Option(help="Allowed loss of held-out accuracy, in points.")
    ] = PilotOptions.max_acc_drop,
    size: options.Size = None,
    classes: options.Classes = None,
    devices: options.Devices = "auto",
    seed: options.Seed = 0,
    progress: options.Progress = True,
) -> None:
    """Choose a repair: compare short repairs over a grid of settings on held-out samples."""
    chosen = PilotOptions(trials=trials, epochs=epochs, max_acc_drop=max_acc_drop)
    base = D3Config.auto(seed=seed, max_acc_drop=max_acc_drop)
    workers = parse_devices(devices)[:trials]
    audit = open_audit(model, checkpoint, data, size=size, classes=classes, device="cpu", seed=seed)
    attack = None if trigger is None else load_attack(trigger)
    repair, held_out = audit.parts()
    folder, console = options.audit_folder(out), Console()
    settings = {
        **audit.settings(),
        "devices": workers,
        "trigger": None if trigger is None else trigger.name,
        "repair_samples": len(repair),
        "held_out_samples": len(held_out),
    }
    done: list[Pilot] = []

    def keep(so_far: Pilot) -> None:
        write_pilot(so_far, chosen, settings, _command(audit, chosen, trigger), folder)
        done.append(so_far)

    try:
        found = run_pilot(
            audit.model,
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
                f"{folder / PILOT} has {done[-1].done} of {len(done[-1].rungs)} rungs.",
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
        f"Next step: {_next(given, folder)}", highlight=False, markup=False, soft_wrap=True
    )
    console.print(f"Written to {folder}: {PILOT}, {CONFIG}.", highlight=False, markup=False)
