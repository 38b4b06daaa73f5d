# SPDX-License-Identifier: Apache-2.0
"""``d3fast attack``: parse options, train a backdoored model, write model, trigger and card."""

from pathlib import Path
from typing import Annotated

import typer

from d3fast.attacks import ADAPTIVE, ATTACKS, TrainConfig
from d3fast.benchmark.implant import AttackSpec, implant, train_model
from d3fast.benchmark.report.attacks import write_card
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.output import Output
from d3fast.data import DATASETS
from d3fast.io.files import check_folder
from d3fast.runtime.devices import resolve_device


def attack(
    attack: Annotated[str, typer.Option(help=f"One of {', '.join(ATTACKS)}.")],
    config: ConfigFile,
    output: Output,
    dataset: Annotated[str, typer.Option(help=f"One of {', '.join(DATASETS)}.")] = "digits",
    data: options.Deprecated = None,
    model: options.Model = "preact_resnet_narrow",
    out: Annotated[Path, typer.Option(help="Folder for model, trigger and card.")] = Path(
        "runs/attack"
    ),
    adaptive: Annotated[
        str | None, typer.Option(help=f"Adaptive attacker around it: {', '.join(ADAPTIVE)}.")
    ] = None,
    target: Annotated[
        int | None, typer.Option(min=0, help="Target class; the default depends on the data set.")
    ] = None,
    ratio: Annotated[float, typer.Option(help="Poisoned share of the training set.")] = 0.1,
    seed: options.Seed = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the training.")] = 20,
    train: Annotated[
        int | None, typer.Option(min=1, help="Number of training images; all by default.")
    ] = None,
    clean: Annotated[int, typer.Option(min=0, help="Images reserved for a defender.")] = 260,
    size: options.Size = None,
    clean_model: Annotated[
        bool,
        typer.Option(
            "--clean-model/--no-clean-model",
            "--twin/--no-twin",
            help="Train a clean model too and measure the floor of the ASR.",
        ),
    ] = True,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
) -> None:
    """Train a backdoored checkpoint; write it with its trigger and a card of its accuracy."""
    spec = AttackSpec(
        data=options.renamed("--data", "--dataset", data, dataset),
        model=model,
        attack=attack,
        adaptive=adaptive,
        target=target,
        ratio=ratio,
        seed=seed,
        train=train,
        clean=clean,
        size=size,
        training=TrainConfig(epochs=epochs),
    )
    where, used = check_folder(out), resolve_device(device)
    splits = spec.splits(data_dir).to(used)
    unpoisoned = None
    if clean_model:
        unpoisoned, _ = train_model(spec, splits, None, device=used, progress=output.bars)
    result = implant(spec, splits, unpoisoned, device=used, progress=output.bars)
    write_card(result, spec, where, output.console)
    output.document(where / "card.json")
