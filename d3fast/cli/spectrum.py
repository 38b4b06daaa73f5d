# SPDX-License-Identifier: Apache-2.0
"""``d3fast spectrum``: parse options, measure the curvature, write page and spectrum.json."""

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from torch import nn

from d3fast.attacks import load_attack
from d3fast.audit.report.spectrum import write_spectrum
from d3fast.audit.resolve import Audit, images_of, open_audit
from d3fast.audit.trigger import check_trigger
from d3fast.cli import options
from d3fast.data import DATASETS, load, stratified_split
from d3fast.hub import Columns, Request, Samples, resolve
from d3fast.io.files import make_folder, sha256
from d3fast.models import load_weights
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.seeding import generator
from d3fast.spectrum import CurvatureReportConfig, curvature_report

SUSPECT = "suspect"


def _named(files: list[Path]) -> dict[str, Path]:
    """Return the repaired files by name."""
    named = {path.name.partition(".")[0]: path for path in files}
    if len(named) < len(files) or SUSPECT in named:
        named = {str(path): path for path in files}
    if len(named) < len(files):
        raise ValueError("--repaired names the same file twice")
    return named


def _samples(data: str, seed: int, data_dir: Path | None, size: int | None) -> str | Samples:
    if data not in DATASETS:
        return data
    return Samples.of(load(data, seed, clean=0, data_dir=data_dir, size=size).test)


def _repaired(path: Path, audit: Audit, suspect: Request) -> nn.Module:
    """Return a repaired model: a folder like the suspect's, or a file of weights."""
    if path.is_dir():
        return resolve(replace(suspect, model=str(path), checkpoint=None)).model
    model = copy.deepcopy(audit.model)
    load_weights(model, path)
    return model


def spectrum(
    model: options.Model,
    checkpoint: options.Checkpoint = None,
    repaired: Annotated[
        list[Path] | None, typer.Option(help="Weights of a repaired model; repeatable.")
    ] = None,
    trigger: Annotated[
        Path | None, typer.Option(help="A known trigger, for the backdoor loss and the ASR.")
    ] = None,
    data: Annotated[
        str,
        typer.Option(help=f"Clean samples; or test images of one of {', '.join(DATASETS)}."),
    ] = "digits",
    data_dir: options.DataDir = None,
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
    samples: Annotated[int, typer.Option(min=1, help="Number of images to measure on.")] = 200,
    out: Annotated[Path, typer.Option(help="Folder for page and JSON.")] = Path("runs/spectrum"),
    losses: Annotated[
        str, typer.Option(help="Losses: clean, and with a trigger backdoor, difference.")
    ] = "clean,backdoor",
    params: Annotated[
        str, typer.Option(help="Parameters: all, head, linear, conv+linear, or a regex.")
    ] = "all",
    kind: Annotated[str, typer.Option(help="hessian or gauss-newton.")] = "hessian",
    k: Annotated[int, typer.Option(min=1, help="Number of eigenvalues.")] = 5,
    tol: Annotated[float, typer.Option(help="Largest relative residual of an eigenvalue.")] = 1e-2,
    probes: Annotated[int, typer.Option(min=1, help="Random vectors for density and trace.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Lanczos steps per random vector.")] = 20,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    progress: options.Progress = True,
) -> None:
    """Measure the curvature of the loss before and after a repair, and the distance per layer."""
    config = CurvatureReportConfig(
        losses=tuple(loss.strip() for loss in losses.split(",")),
        params=params,
        kind=kind,
        k=k,
        tol=tol,
        probes=probes,
        steps=steps,
        seed=seed,
    )
    where = make_folder(out)
    suspect = options.request(model, checkpoint, mean=mean, std=std, size=size, answers=answers)
    audit = open_audit(
        suspect,
        _samples(data, seed, data_dir, size),
        columns=Columns(text_column, label_column, image_column),
        split=split,
        classes=classes,
        device=device,
        seed=seed,
        max_memory=options.gibibytes(max_memory),
    )
    options.print_notes(audit)
    options.limit_threads(audit.model)
    clean, used = images_of(audit.data), resolve_device(None, audit.model)
    count = min(samples, len(clean))
    (chosen,) = stratified_split(clean.labels, [count], generator(seed, "spectrum samples"))
    images = clean.subset(chosen.sort().values)
    models = {SUSPECT: audit.model}
    for name, path in _named(repaired or []).items():
        models[name] = _repaired(path, audit, suspect).to(used)
    attack = None if trigger is None else load_attack(trigger)
    if attack is not None:
        check_trigger(attack, images)
    rows = curvature_report(
        models, images, attack, config=config, device=str(used), progress=progress
    )
    named = data if data in DATASETS else Path(data).name  # without the user's folders
    settings = {
        **asdict(config),
        "data": named,
        "model": audit.spec,
        "samples": len(images),
        "checkpoint": audit.checkpoint,
        "sha256": audit.sha256,
        "repaired": {name: sha256(path) for name, path in _named(repaired or []).items()},
    }
    command = (
        f"d3fast spectrum --data {named} --model {audit.spec} --samples {samples} "
        f"--params {params} --kind {kind} --k {k} --tol {tol:g} --probes {probes} "
        f"--steps {steps} --seed {seed}"
    )
    write_spectrum(rows, settings, command, where, Console())
