# SPDX-License-Identifier: Apache-2.0
"""``d3fast attack``: parse options, train a backdoored model, write model, trigger and card."""

from pathlib import Path
from typing import Annotated

import typer

from d3fast.attacks import ADAPTIVE, ATTACKS, TrainConfig
from d3fast.audit.trigger import TEXT_ATTACKS
from d3fast.benchmark.implant import AttackSpec, implant, train_model
from d3fast.benchmark.own_attack import OwnAttack, plant
from d3fast.benchmark.report.attacks import write_card
from d3fast.benchmark.report.own_attack import write_planted
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.output import Output
from d3fast.data import DATASETS
from d3fast.io.files import check_folder
from d3fast.runtime.devices import resolve_device

_OWN = "A model of your own"
_DATASET = "A data set of d3fast"
_EPOCHS, _CLEAN = 20, 260


def attack(
    attack: Annotated[
        str,
        typer.Option(help=f"On images {', '.join(ATTACKS)}; on texts {', '.join(TEXT_ATTACKS)}."),
    ],
    suspect: options.SuspectOptions,
    reading: options.SampleOptions,
    config: ConfigFile,
    output: Output,
    data: Annotated[
        str | None,
        typer.Option(
            help="Samples of your own: the model that --model names is backdoored with them.",
            rich_help_panel=_OWN,
        ),
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help=f"One of {', '.join(DATASETS)}: a new model is trained.", rich_help_panel=_DATASET
        ),
    ] = "digits",
    model: options.Model = "preact_resnet_narrow",
    out: Annotated[Path, typer.Option(help="Folder for model, trigger and card.")] = Path(
        "runs/attack"
    ),
    words: Annotated[
        str | None,
        typer.Option(help="Words that an attack on texts inserts.", rich_help_panel=_OWN),
    ] = None,
    lr: Annotated[
        float, typer.Option(help="Learning rate of the fine-tuning.", rich_help_panel=_OWN)
    ] = OwnAttack.lr,
    target: Annotated[
        int | None, typer.Option(min=0, help="Target class; the default depends on the attack.")
    ] = None,
    ratio: Annotated[float, typer.Option(help="Poisoned share of the training set.")] = 0.1,
    seed: options.Seed = 0,
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"Epochs.  [{_EPOCHS}; of a model of your own 10, or as many as 300 steps]"
        ),
    ] = None,
    adaptive: Annotated[
        str | None,
        typer.Option(
            help=f"Adaptive attacker around it: {', '.join(ADAPTIVE)}.", rich_help_panel=_DATASET
        ),
    ] = None,
    mapping: options.LabelMapping = None,
    train: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of training images; all by default.", rich_help_panel=_DATASET
        ),
    ] = None,
    clean: Annotated[
        int, typer.Option(min=0, help="Images reserved for a defender.", rich_help_panel=_DATASET)
    ] = _CLEAN,
    clean_model: Annotated[
        bool,
        typer.Option(
            "--clean-model/--no-clean-model",
            "--twin/--no-twin",
            help="Train a clean model too and measure the floor of the ASR.",
            rich_help_panel=_DATASET,
        ),
    ] = True,
    data_dir: options.DataDir = None,
    device: options.Device = "auto",
) -> None:
    """Train a backdoored model; write it with its trigger and a card of its accuracy.

    With --data the model that --model names gets a backdoor and keeps its format; without, a new
    model is trained on a data set of d3fast.
    """
    where = check_folder(out)
    if data is not None and data not in DATASETS:
        if adaptive is not None or train is not None or mapping is not None:
            raise ValueError(
                "adaptive, mapping and train are for a data set (--dataset), got --data"
            )
        chosen = OwnAttack(attack, target, ratio, words, epochs, lr, seed=seed)
        audit = reading.open(suspect.request(model), data, output, device=device, seed=seed)
        planted = plant(audit, chosen, progress=output.bars)
        if planted.shortfall is not None:
            raise ValueError(planted.shortfall)
        write_planted(planted, audit, where, output.console)
    else:
        if attack in TEXT_ATTACKS:
            raise ValueError(f"attack {attack!r} needs a model and texts of your own: --data")
        spec = AttackSpec(
            data=options.renamed("--data", "--dataset", data, dataset),
            model=model,
            attack=attack,
            adaptive=adaptive,
            mapping=mapping,
            target=target,
            ratio=ratio,
            seed=seed,
            train=train,
            clean=clean,
            size=suspect.size,
            training=TrainConfig(epochs=epochs or _EPOCHS),
        )
        used = resolve_device(device)
        splits = spec.splits(data_dir).to(used)
        unpoisoned = None
        if clean_model:
            unpoisoned, _ = train_model(spec, splits, None, device=used, progress=output.bars)
        result = implant(spec, splits, unpoisoned, device=used, progress=output.bars)
        write_card(result, spec, where, output.console)
    output.document(where / "card.json")
