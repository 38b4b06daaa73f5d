# SPDX-License-Identifier: Apache-2.0
"""``d3fast detox``: parse options, repair a checkpoint, write weights and card.json together."""

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
from d3fast.audit.resolve import CARD, INSPECTION, REPAIRED, Audit, images_of, open_audit
from d3fast.audit.trigger import check_trigger
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
from d3fast.detox.config import OPTIMIZERS
from d3fast.detox.samples import BATCH_SIZE
from d3fast.hub import Columns
from d3fast.io.files import atomic_write, sha256
from d3fast.results.schema.audit import Role
from d3fast.results.store import Results
from d3fast.runtime.checks import check_choice
from d3fast.training.metrics import Metrics

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
    """Return the name and the configuration: preset, then file, then command line."""
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


def _save_partial(audit: Audit, chosen: D3Config, folder: Path, console: Console) -> None:
    """After Ctrl-C write the weights of the last finished epoch."""
    state = folder / STATE
    if not state.exists():
        console.print("No epoch was finished; nothing was written.", highlight=False)
        return
    epochs = weights_so_far(state, audit.model)
    save_weights(audit.model, folder / PARTIAL, chosen)
    console.print(
        f"{epochs} epochs were finished. {folder / PARTIAL} holds the weights so far; "
        "the same command with --resume continues.",
        highlight=False,
        markup=False,
    )


def _state_file(folder: Path, resume: bool) -> Path:
    state = folder / STATE
    if state.exists() and not resume:
        raise ValueError(
            f"{state} belongs to an interrupted repair: continue it with --resume, or remove the "
            "file to start again"
        )
    return state


def detox(
    model: options.Model,
    data: options.Clean,
    checkpoint: options.Checkpoint = None,
    out: options.Out = options.AUDIT,
    preset: Annotated[
        str | None, typer.Option(help=f"{', '.join(PRESETS)}; auto by default.")
    ] = None,
    max_acc_drop: Annotated[
        float | None,
        typer.Option(help="Allowed loss of held-out accuracy, in points.  [auto: 1]"),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(help="Tracked weights: head, linear, conv+linear, all, or a regex."),
    ] = None,
    push: options.Deprecated = None,
    restart: Annotated[
        str | None,
        typer.Option(help="Restart the last N blocks from random weights, or weights by a regex."),
    ] = None,
    constraint: Annotated[
        str | None,
        typer.Option(help="norm_sphere, norm_ball, distance_ball, _floor, _shell, or none."),
    ] = None,
    radius: Annotated[
        str | None,
        typer.Option(help="Radius of the constraint, relative to the initial norm: R or R,R."),
    ] = None,
    distance_schedule: Annotated[
        str | None,
        typer.Option(help="Schedule of the distance weight: constant, linear, cosine, step."),
    ] = None,
    schedule: options.Deprecated = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Number of epochs.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help=f"{' or '.join(OPTIMIZERS)}.  [sgd]")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate.")] = None,
    clean_weight: Annotated[float | None, typer.Option(help="Initial value of lambda.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Bound on the clean loss, in nats.")] = None,
    distance_weight: Annotated[float | None, typer.Option(help="Weight of the distance.")] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with any field of D3Config.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples per step.")] = BATCH_SIZE,
    flip: Annotated[bool, typer.Option(help="Augment with mirrored samples.")] = False,
    held_out: Annotated[float, typer.Option(help="Held-out share of the samples.")] = 0.25,
    trigger: Annotated[
        Path | None, typer.Option(help="A known trigger: measured, not used in the repair.")
    ] = None,
    inspect: Annotated[bool, typer.Option(help="Inspect the model before and after.")] = True,
    resume: Annotated[bool, typer.Option(help="Continue an interrupted repair.")] = False,
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
    seed: options.Seed = 0,
    device: options.Device = "auto",
    progress: options.Progress = True,
) -> None:
    """Repair a checkpoint with a few clean samples; write the weights and a card of the repair."""
    console = Console()
    name, chosen = _config(
        preset,
        config,
        {
            "max_acc_drop": max_acc_drop,
            "track": options.renamed("--push", "--track", push, track),
            "restart": int(restart) if restart and restart.isdecimal() else restart,
            "constraint": constraint,
            "radius": _radius(radius),
            "distance_schedule": options.renamed(
                "--schedule", "--distance-schedule", schedule, distance_schedule
            ),
            "epochs": epochs,
            "optimizer": optimizer,
            "lr": lr,
            "clean_weight": clean_weight,
            "epsilon": epsilon,
            "distance_weight": distance_weight,
            "seed": seed,
        },
    )
    suspect = options.request(model, checkpoint, mean=mean, std=std, size=size, answers=answers)
    audit = open_audit(
        suspect,
        data,
        columns=Columns(text_column, label_column, image_column),
        split=split,
        classes=classes,
        device=device,
        seed=seed,
        max_memory=options.gibibytes(max_memory),
    )
    options.print_notes(audit)
    options.limit_threads(audit.model)
    attack = None if trigger is None else load_attack(trigger)
    repair, held = map(images_of, audit.parts(held_out))
    parts = repair, held
    if attack is not None:
        check_trigger(attack, held)
    samples = repair_samples(
        repair, batch_size=batch_size, augment=usual_augment(repair.shape, flip), seed=seed
    )
    folder = options.audit_folder(out)
    facts = audit.settings()
    keep = Checkpointing(
        _state_file(folder, resume),
        resume,
        samples.generators,
        seconds=1.0,
        identity=f"{facts['samples_sha256']} {held_out} {batch_size} {flip}",
    )
    earlier = inspected_before(folder / INSPECTION, facts) if inspect else []
    before = card.measured(audit.model, held, attack)
    try:
        result = detoxify(
            audit.model,
            samples.loader,
            chosen,
            held.batches(BATCH_SIZE),
            progress=progress,
            checkpointing=keep,
        )
    except KeyboardInterrupt:
        _save_partial(audit, chosen, folder, console)
        raise
    measured = before, card.measured(result.model, held, attack)
    inspected = _inspect_both(audit, result, earlier, progress) if inspect else []
    used = {"batch_size": batch_size, "held_out": held_out, "seed": seed}
    settings = {
        **facts,
        "config": asdict(chosen),
        "options": {**used, "preset": name, "flip": flip},
    }
    # Both files or none: the weights take their place only after the card.
    with atomic_write(folder / REPAIRED) as weights:
        result.save(weights)
        rows = _card(audit, parts, result, measured, name, sha256(weights)) + inspected
        Results(_command(audit, used), settings, rows).write(folder / CARD)
    for leftover in (STATE, PARTIAL):
        (folder / leftover).unlink(missing_ok=True)
    card.print_card(rows, console)
    console.print(f"Written to {folder}: {REPAIRED}, {CARD}.", highlight=False, markup=False)
    if not next(row for row in rows if row["kind"] == "repair")["kept"]:
        raise typer.Exit(MISSED)


def _card(
    audit: Audit,
    parts: tuple[ImageData, ImageData],
    result: DetoxResult,
    measured: tuple[Metrics, Metrics],
    preset: str,
    sha: str,
) -> list[dict[str, Any]]:
    """Return all rows of the card but those of the inspection."""
    before, after = measured
    drop, written = card.lost_points(before, after), {"output": REPAIRED, "output_sha256": sha}
    rows = [
        card.model_row("suspect", audit.model, before, audit.sha256),
        card.model_row("repaired", result.model, after, sha),
        card.repair_row(audit, result, preset, drop, written, (len(parts[0]), len(parts[1]))),
        *card.epoch_rows(result),
        card.distance_row(audit.model, result.model),
    ]
    return [row.to_row() for row in rows]


def _inspect_both(
    audit: Audit, result: DetoxResult, earlier: Sequence[Mapping[str, Any]], progress: bool
) -> list[dict[str, Any]]:
    """Return the rows of an inspection before and after; ``earlier`` replaces the former."""
    rows = [dict(row) for row in earlier]
    models: dict[Role, nn.Module] = {"repaired": result.model}
    if not earlier:
        models = {"suspect": audit.model, **models}
    for role, model in models.items():
        found = inspect_model(model, images_of(audit.data), seed=audit.seed, progress=progress)
        suspected = [target for r in rows if r["kind"] == "verdict" for target in r["targets"]]
        every = found.rows(role, sha256="", pictured=suspected)
        rows += [row for row in every if row["kind"] != "model"]
    return rows


def _command(audit: Audit, used: dict[str, Any]) -> str:
    """Return the command line without the names of the user's folders."""
    parts = [f"--{key.replace('_', '-')} {value}" for key, value in used.items()]
    return f"d3fast detox --model {audit.spec} --checkpoint {audit.checkpoint} {' '.join(parts)}"
