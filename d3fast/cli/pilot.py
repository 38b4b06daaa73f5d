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
from d3fast.audit.resolve import PILOT, Audit, images_of, open_audit
from d3fast.cli import options
from d3fast.detox import D3Config
from d3fast.hub import Columns
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
    model: options.Model,
    data: options.Clean,
    checkpoint: options.Checkpoint = None,
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
    text_column: options.TextColumn = None,
    label_column: options.LabelColumn = None,
    image_column: options.ImageColumn = None,
    split: options.Split = None,
    classes: options.Classes = None,
    mean: options.Mean = None,
    std: options.Std = None,
    size: options.Size = None,
    answers: options.Answers = None,
    max_memory: options.MaxMemory = options.MAX_GIB,
    devices: options.Devices = "auto",
    seed: options.Seed = 0,
    progress: options.Progress = True,
) -> None:
    """Choose a repair: compare short repairs over a grid of settings on held-out samples."""
    chosen = PilotOptions(trials=trials, epochs=epochs, max_acc_drop=max_acc_drop)
    base = D3Config.auto(seed=seed, max_acc_drop=max_acc_drop)
    workers = parse_devices(devices)[:trials]
    suspect = options.request(model, checkpoint, mean=mean, std=std, size=size, answers=answers)
    audit = open_audit(
        suspect,
        data,
        columns=Columns(text_column, label_column, image_column),
        split=split,
        classes=classes,
        device="cpu",
        seed=seed,
        max_memory=options.gibibytes(max_memory),
    )
    options.print_notes(audit)
    attack = None if trigger is None else load_attack(trigger)
    repair, held_out = map(images_of, audit.parts())
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
        "text-column": text_column,
        "label-column": label_column,
        "image-column": image_column,
        "split": split,
        "classes": classes,
        "mean": mean,
        "std": std,
        "size": size,
        "answers": answers,
        "seed": seed or None,
    }
    console.print(
        f"Next step: {_next(given, folder)}", highlight=False, markup=False, soft_wrap=True
    )
    console.print(f"Written to {folder}: {PILOT}, {CONFIG}.", highlight=False, markup=False)
