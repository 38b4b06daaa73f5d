# SPDX-License-Identifier: Apache-2.0
"""``d3fast detox``: parses, calls, prints."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from torch import nn

from d3fast.attacks import load_attack
from d3fast.audit import inspect_model
from d3fast.audit.report import card
from d3fast.audit.report.card import inspected_before
from d3fast.audit.resolve import CARD, INSPECTION, REPAIRED, Audit, open_audit
from d3fast.cli import options
from d3fast.data import ImageData
from d3fast.detox import (
    PRESETS,
    Checkpointing,
    D3Config,
    DetoxResult,
    detoxify,
    read_config,
    repair_samples,
    save_weights,
    usual_augment,
    weights_so_far,
)
from d3fast.detox.samples import BATCH_SIZE
from d3fast.io.files import make_folder, sha256
from d3fast.results.schema.audit import Role
from d3fast.results.store import Results
from d3fast.runtime.checks import check_choice
from d3fast.training.metrics import Trigger

STATE, PARTIAL = "resume.pt", "partial.safetensors"
MISSED = 3  # exit code


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, got {text!r}") from None


def _radius(text: str | None) -> Any:
    if text is None:
        return None
    ends = [_number(part, "radius") for part in text.split(",")]
    return ends[0] if len(ends) == 1 else tuple(ends)


def _config(preset: str | None, file: Path | None, chosen: dict[str, Any]) -> tuple[str, D3Config]:
    """The configuration: preset, then file, then what was given on the command line."""
    if preset is not None:
        check_choice("preset", preset, PRESETS)
    name = preset or "auto"
    if file is None:
        config = PRESETS[name]()
    else:
        config = read_config(file, preset)
        name = file.name if preset is None else f"{file.name} over {preset}"
    given = {key: value for key, value in chosen.items() if value is not None}
    if given.get("constraint") == "none":
        given["constraint"] = None
    return name, replace(config, **given)


def _leave_partial(case: Audit, chosen: D3Config, place: Path, console: Console) -> None:
    """After Ctrl-C: what there is, as a file that can be used."""
    state = place / STATE
    if not state.exists():
        console.print("No epoch was finished: nothing to keep.", highlight=False)
        return
    epochs = weights_so_far(state, case.model)
    save_weights(case.model, place / PARTIAL, chosen)
    console.print(
        f"{epochs} epochs were finished. {place / PARTIAL} holds the weights so far; "
        "the same command with --resume goes on.",
        highlight=False,
        markup=False,
    )


def _state_of(place: Path, resume: bool) -> Path:
    state = place / STATE
    if state.exists() and not resume:
        raise ValueError(
            f"{state} is there from a repair that was cut off: --resume goes on with it; remove "
            "it to begin anew"
        )
    return state


def detox(
    checkpoint: options.Checkpoint,
    data: options.Clean,
    model: options.Model = "preact_resnet_narrow",
    out: options.Out = options.CASE,
    preset: Annotated[
        str | None, typer.Option(help=f"{', '.join(PRESETS)}; auto by default.")
    ] = None,
    max_acc_drop: Annotated[
        float | None,
        typer.Option(help="Points of held-out accuracy that may be lost.  [auto: 1]"),
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Weights to push: head, linear, conv+linear, all, a regex.")
    ] = None,
    constraint: Annotated[
        str | None,
        typer.Option(help="norm_sphere, norm_ball, distance_ball, _floor, _shell, or none."),
    ] = None,
    radius: Annotated[
        str | None, typer.Option(help="Of the constraint, in units of the start's norm: R or R,R.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Of the distance weight: constant, linear, cosine, step.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the samples.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    clean_weight: Annotated[float | None, typer.Option(help="Lambda, its first value.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Bound on the clean loss, nats.")] = None,
    distance_weight: Annotated[float | None, typer.Option(help="Weight of the distance.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any field of D3Config.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per step.")] = BATCH_SIZE,
    flip: Annotated[bool, typer.Option(help="Mirrored samples are samples too.")] = False,
    held_out: Annotated[float, typer.Option(help="Share of the samples to decide on.")] = 0.25,
    trigger: Annotated[
        Path | None, typer.Option(help="A known trigger: measured with, never repaired with.")
    ] = None,
    inspect: Annotated[bool, typer.Option(help="Inspect the model before and after.")] = True,
    resume: Annotated[bool, typer.Option(help="Go on with a repair that was cut off.")] = False,
    size: options.Size = None,
    classes: options.Classes = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    progress: options.Progress = True,
) -> None:
    """Repair a checkpoint with a few clean samples: weights, and a card that says what was done."""
    console = Console()
    name, chosen = _config(
        preset,
        config,
        {
            "max_acc_drop": max_acc_drop,
            "track": push,
            "constraint": constraint,
            "radius": _radius(radius),
            "distance_schedule": schedule,
            "epochs": epochs,
            "lr": lr,
            "clean_weight": clean_weight,
            "epsilon": epsilon,
            "distance_weight": distance_weight,
            "seed": seed,
        },
    )
    case = open_audit(model, checkpoint, data, size=size, classes=classes, device=device, seed=seed)
    options.settle_threads(case.model)
    attack = None if trigger is None else load_attack(trigger)
    repair, held = case.parts(held_out)
    samples = repair_samples(
        repair, batch_size=batch_size, augment=usual_augment(repair.shape, flip), seed=seed
    )
    place = make_folder(out)
    facts = case.settings()
    keep = Checkpointing(
        _state_of(place, resume),
        resume,
        samples.generators,
        seconds=1.0,
        identity=f"{facts['samples_sha256']} {held_out} {batch_size} {flip}",
    )
    before = inspected_before(place / INSPECTION, facts) if inspect else []
    try:
        result = detoxify(
            case.model,
            samples.loader,
            chosen,
            held.batches(BATCH_SIZE),
            progress=progress,
            checkpointing=keep,
        )
    except KeyboardInterrupt:
        _leave_partial(case, chosen, place, console)
        raise
    result.save(place / REPAIRED)
    rows = _card(case, (repair, held), result, name, place / REPAIRED, attack)
    if inspect:
        rows += _inspected(case, result, before, progress)
    used = {"batch_size": batch_size, "held_out": held_out, "seed": seed}
    settings = {
        **facts,
        "config": asdict(chosen),
        "options": {**used, "preset": name, "flip": flip},
    }
    Results(_command(model, case, used), settings, rows).write(place / CARD)
    for leftover in (STATE, PARTIAL):
        (place / leftover).unlink(missing_ok=True)
    card.print_card(rows, console)
    console.print(f"Written to {place}: {REPAIRED}, {CARD}.", highlight=False, markup=False)
    if not next(row for row in rows if row["kind"] == "repair")["kept"]:
        raise typer.Exit(MISSED)


def _card(
    case: Audit,
    parts: tuple[ImageData, ImageData],
    result: DetoxResult,
    preset: str,
    output: Path,
    attack: Trigger | None,
) -> list[dict[str, Any]]:
    """All rows but those of the inspection."""
    repair, held = parts
    before, after = (card.measured(m, held, attack) for m in (case.model, result.model))
    written = {"output": output.name, "output_sha256": sha256(output)}
    rows = [
        card.model_row("suspect", case.model, before, case.sha256),
        card.model_row("repaired", result.model, after, written["output_sha256"]),
        card.repair_row(
            case, result, preset, card.lost_points(before, after), written, (len(repair), len(held))
        ),
        *card.epoch_rows(result),
        card.distance_row(case.model, result.model),
    ]
    return [row.to_row() for row in rows]


def _inspected(
    case: Audit, result: DetoxResult, before: Sequence[Mapping[str, Any]], progress: bool
) -> list[dict[str, Any]]:
    """What an inspection finds before and after; an inspection of the suspect is not repeated."""
    rows = [dict(row) for row in before]
    todo: dict[Role, nn.Module] = {"repaired": result.model}
    if not before:
        todo = {"suspect": case.model, **todo}
    for role, one in todo.items():
        found = inspect_model(one, case.data, seed=case.seed, progress=progress)
        suspected = [target for r in rows if r["kind"] == "verdict" for target in r["targets"]]
        every = found.rows(role, sha256="", pictured=suspected)
        rows += [row for row in every if row["kind"] != "model"]
    return rows


def _command(model: str, case: Audit, options_used: dict[str, Any]) -> str:
    """The command line without the names of the user's folders."""
    parts = [f"--{key.replace('_', '-')} {value}" for key, value in options_used.items()]
    return f"d3fast detox --model {model} --checkpoint {case.checkpoint.name} {' '.join(parts)}"
