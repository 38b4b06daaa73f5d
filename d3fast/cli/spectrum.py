# SPDX-License-Identifier: Apache-2.0
"""``d3fast spectrum``: parse options, measure the curvature, write page and spectrum.json."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from torch import nn

from d3fast.attacks import load_attack
from d3fast.audit.report.spectrum import write_spectrum
from d3fast.audit.trigger import check_trigger
from d3fast.cli import options
from d3fast.data import DATASETS, ImageData, clean_samples, load, stratified_split
from d3fast.io.files import make_folder, sha256
from d3fast.models import load_weights, make_model
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


def _samples(
    data: str, seed: int, samples: int, data_dir: Path | None, size: int | None
) -> ImageData:
    if data in DATASETS or not Path(data).exists():
        test = load(data, seed, clean=0, data_dir=data_dir, size=size).test
    else:
        test = clean_samples(data, size=size)
    count = min(samples, len(test))
    (chosen,) = stratified_split(test.labels, [count], generator(seed, "spectrum samples"))
    return test.subset(chosen.sort().values)


def spectrum(
    checkpoint: options.Checkpoint,
    repaired: Annotated[
        list[Path] | None, typer.Option(help="Weights of a repaired model; repeatable.")
    ] = None,
    trigger: Annotated[
        Path | None, typer.Option(help="A known trigger, for the backdoor loss and the ASR.")
    ] = None,
    model: options.Model = "preact_resnet_narrow",
    data: Annotated[
        str,
        typer.Option(help=f"One of {', '.join(DATASETS)}; or clean samples: a folder or .npz."),
    ] = "digits",
    data_dir: options.DataDir = None,
    size: options.Size = None,
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
    used, where = resolve_device(device), make_folder(out)
    images = _samples(data, seed, samples, data_dir, size)
    models: dict[str, nn.Module] = {}
    for name, path in {SUSPECT: checkpoint, **_named(repaired or [])}.items():
        models[name] = make_model(model, len(images.classes), images.shape[0])
        load_weights(models[name], path)
        models[name].to(used)
        options.limit_threads(models[name])
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
        "model": model,
        "samples": len(images),
        "checkpoint": checkpoint.name,
        "sha256": sha256(checkpoint),
        "repaired": {name: sha256(path) for name, path in _named(repaired or []).items()},
    }
    command = (
        f"d3fast spectrum --data {named} --model {model} --samples {samples} --params {params} "
        f"--kind {kind} --k {k} --tol {tol:g} --probes {probes} --steps {steps} --seed {seed}"
    )
    write_spectrum(rows, settings, command, where, Console())
