# SPDX-License-Identifier: Apache-2.0
"""``d3fast spectrum``: parse options, measure the curvature, write page and spectrum.json."""

import copy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from d3fast.audit.report.spectrum import write_spectrum
from d3fast.audit.resolve import SPECTRUM, Audit, images_of
from d3fast.audit.trigger import check_trigger, load_trigger
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.output import Output
from d3fast.data import DATASETS, load, stratified_split
from d3fast.hub import Request, Samples, resolve
from d3fast.io.files import check_folder, weights_digest
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


def _dataset(name: str, seed: int, data_dir: Path | None, size: int | None) -> Samples:
    return Samples.of(load(name, seed, clean=0, data_dir=data_dir, size=size).test)


def _repaired(path: Path, audit: Audit, suspect: Request) -> nn.Module:
    """Return a repaired model: a folder like the suspect's, or a file of weights."""
    if path.is_dir():
        return resolve(replace(suspect, model=str(path), checkpoint=None)).model
    model = copy.deepcopy(audit.model)
    load_weights(model, path)
    return model


def spectrum(
    model: options.Model,
    suspect: options.SuspectOptions,
    reading: options.SampleOptions,
    config: ConfigFile,
    output: Output,
    repaired: Annotated[
        list[Path] | None, typer.Option(help="Weights of a repaired model; repeatable.")
    ] = None,
    trigger: Annotated[
        Path | None, typer.Option(help="A known trigger, for the backdoor loss and the ASR.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Clean samples, as for inspect; or give --dataset.")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help=f"Test images of one of {', '.join(DATASETS)}, without --data.")
    ] = "digits",
    data_dir: options.DataDir = None,
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
) -> None:
    """Measure the curvature of the loss before and after a repair, and the distance per layer."""
    chosen = CurvatureReportConfig(
        losses=tuple(loss.strip() for loss in losses.split(",")),
        params=params,
        kind=kind,
        k=k,
        tol=tol,
        probes=probes,
        steps=steps,
        seed=seed,
    )
    where, request = check_folder(out), suspect.request(model)
    given = data or _dataset(dataset, seed, data_dir, suspect.size)
    audit = reading.open(request, given, output, device=device, seed=seed)
    clean, used = images_of(audit.data), resolve_device(None, audit.model)
    count = min(samples, len(clean))
    (drawn,) = stratified_split(clean.labels, [count], generator(seed, "spectrum samples"))
    images = clean.subset(drawn.sort().values)
    models = {SUSPECT: audit.model}
    for name, path in _named(repaired or []).items():
        models[name] = _repaired(path, audit, request).to(used)
    attack = None if trigger is None else load_trigger(trigger)
    if attack is not None:
        check_trigger(attack, images)
    rows = curvature_report(
        models, images, attack, config=chosen, device=str(used), progress=output.bars
    )
    named = dataset if data is None else Path(data).name  # without the user's folders
    settings = {
        **asdict(chosen),
        "data": named,
        "model": audit.spec,
        "samples": len(images),
        "checkpoint": audit.checkpoint,
        "sha256": audit.sha256,
        "repaired": {name: weights_digest(path) for name, path in _named(repaired or []).items()},
    }
    source = "dataset" if data is None else "data"
    command = (
        f"d3fast spectrum --{source} {named} --model {audit.spec} --samples {samples} "
        f"--params {params} --kind {kind} --k {k} --tol {tol:g} --probes {probes} "
        f"--steps {steps} --seed {seed}"
    )
    write_spectrum(rows, settings, command, where, output.console)
    output.document(where / SPECTRUM)
