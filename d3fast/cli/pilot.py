# SPDX-License-Identifier: Apache-2.0
"""``d3fast pilot``: parse options, run the pilot, print it and write pilot.json, pilot.toml."""

import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from d3fast.audit.pilot import Pilot, PilotOptions, run_pilot
from d3fast.audit.report.pilot import CONFIG, print_pilot, write_pilot
from d3fast.audit.resolve import PILOT, Audit, images_of
from d3fast.audit.trigger import load_trigger
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.exit_codes import FAIL_ON, parse_fail_on
from d3fast.cli.output import Output
from d3fast.data import ImageData
from d3fast.detox import D3Config
from d3fast.results.store import read_results
from d3fast.training.paired import correct_answers, resolved_limit

_BATCH = 256


def _command(audit: Audit, chosen: PilotOptions, trigger: Path | None) -> str:
    command = (
        f"d3fast pilot --model {audit.spec} --trials {chosen.trials} --epochs {chosen.epochs} "
        f"--max-acc-drop {chosen.max_acc_drop:g} --seed {audit.seed}"
    )
    return command + ("" if trigger is None else f" --trigger {trigger.name}")


def _next(model: str, given: dict[str, Any], groups: tuple[Any, ...], folder: Path) -> str:
    """Return the command line of a repair with the recommended setting."""
    for group in groups:
        given |= {
            field.name.replace("_", "-"): value
            for field in fields(group)
            if (value := getattr(group, field.name)) != field.default
        }
    parts = ["d3fast", "repair", model]
    for name, value in {**given, "config": folder / CONFIG, "out": folder}.items():
        if value is not None:
            parts += [f"--{name}", str(value)]
    return shlex.join(parts)


def _resolved(audit: Audit, held_out: ImageData) -> float:
    """Return the usual limit of accuracy, raised to what the held-out samples can resolve."""
    correct = int(correct_answers(audit.model, held_out.batches(_BATCH)).sum())
    return resolved_limit(PilotOptions.max_acc_drop, correct, len(held_out))


def _written(path: Path) -> int | None:
    """Return the time of the last write in nanoseconds, None if there is no file."""
    return path.stat().st_mtime_ns if path.exists() else None


def pilot(
    model: options.Model,
    data: options.Clean,
    suspect: options.SuspectOptions,
    reading: options.SampleOptions,
    where: options.EngineOptions,
    config: ConfigFile,
    output: Output,
    trigger: Annotated[
        Path | None,
        typer.Option(help="A known trigger: measured, and used in the recommendation."),
    ] = None,
    out: options.Out = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Number of settings in the first rung.")
    ] = PilotOptions.trials,
    epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of a trial in the last rung.")
    ] = PilotOptions.epochs,
    max_acc_drop: Annotated[
        float | None,
        typer.Option(
            help="Allowed loss of held-out accuracy, in points; 1 by default, or what the "
            "held-out samples resolve."
        ),
    ] = None,
    devices: options.Devices = "auto",
    fail_on: options.FailOn = FAIL_ON,
    seed: options.Seed = 0,
) -> None:
    """Choose a repair: compare short repairs over a grid of settings on held-out samples.

    Exit code 3 if no setting stays within the accuracy limit.
    """
    limit = PilotOptions.max_acc_drop if max_acc_drop is None else max_acc_drop
    chosen = PilotOptions(trials=trials, epochs=epochs, max_acc_drop=limit)
    fails, engine = parse_fail_on(fail_on), where.choice()
    workers = engine.parse_devices(devices)[:trials]
    audit = reading.open(suspect.request(model), data, output, device="cpu", seed=seed)
    attack = None if trigger is None else load_trigger(trigger)
    repair, held_out = map(images_of, audit.parts())
    folder = options.audit_folder(out, audit)
    if max_acc_drop is None:
        chosen = replace(chosen, max_acc_drop=_resolved(audit, held_out))
    settings = {
        **audit.settings(),
        "devices": workers,
        "trigger": None if trigger is None else trigger.name,
        "repair_samples": len(repair),
        "held_out_samples": len(held_out),
    }
    place, before = folder / PILOT, _written(folder / PILOT)

    def keep(so_far: Pilot) -> None:
        command = _command(audit, chosen, trigger)
        write_pilot(so_far, chosen, settings, command, folder, limit=max_acc_drop)

    try:
        found = run_pilot(
            audit.model,
            repair,
            held_out,
            options=chosen,
            base=D3Config.auto(seed=seed, max_acc_drop=limit),
            attack=attack,
            devices=workers,
            engine=engine,
            progress=output.bars,
            on_rung=keep,
        )
    except KeyboardInterrupt:
        if _written(place) != before:  # no flag of `keep`: Ctrl-C can come after its last write
            kept = read_results(place).settings
            output.say(f"{place} has {kept['rungs_done']} of {len(kept['rungs'])} rungs.")
        raise
    print_pilot(found, output.console)
    given = {"data": data, "seed": seed or None}
    output.say(
        f"Next step: {_next(model, given, (suspect, reading), folder)}",
        f"Written to {folder}: {PILOT}, {CONFIG}.",
    )
    output.document(place)
    options.leave(fails, missed=not found.recommended["within"])
