# SPDX-License-Identifier: Apache-2.0
"""Repair of a pretrained image network, with and without its public base.

EfficientNet-Lite0 is fine-tuned on a few thousand CIFAR-10 images with a backdoor, and repaired by
fine-tuning, by D3, and by restarts of its last blocks: at random weights, or at the ImageNet ones
that the network came from. The last lines begin the whole body there, with and without
distillation from the suspect: what is left when the suspect's weights are given up.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.studies.harness import save, start_workers
from benchmarks.studies.pretrained_jobs import (
    MODEL,
    FineTuned,
    PretrainedRepair,
    model_row,
)
from d3fast.attacks import TrainConfig
from d3fast.benchmark.implant import AttackSpec
from d3fast.benchmark.presets import UNPUSHED, options_of
from d3fast.data import AUGMENTATIONS
from d3fast.detox import D3Config
from d3fast.results.jobs import Row
from d3fast.results.schema.benchmark import AttackRow
from d3fast.results.schema.fields import read_record

# The last four of sixteen blocks and the convolution between them and the head.
LAST = r"^(_blocks\.1[2-5]|_conv_head|_bn1)\."
BODY = r"^_(conv_stem|bn0|blocks|conv_head|bn1)\."
_EPOCHS = 15
_SHARED: Mapping[str, Any] = {"epochs": _EPOCHS, "channels_last": True}


@dataclass(frozen=True)
class Line:
    """A line of the table.

    Attributes:
        defense: name of the defence.
        options: its options.
        from_base: give it the public network.
    """

    defense: str
    options: Mapping[str, Any] = field(default_factory=dict)
    from_base: bool = False


def _d3(from_base: bool = False, **changes: Any) -> Line:
    return Line("d3", {**_SHARED, "lr": 0.02, "distillation": 0.4, **changes}, from_base)


LINES: Mapping[str, Line] = {
    "fine-tuning": Line("fine-tuning", {"epochs": _EPOCHS}),
    "fine-mixing from the base": Line("fine-mixing", {"epochs": _EPOCHS}, from_base=True),
    "d3 auto": Line("d3", {**options_of(D3Config.auto()), **_SHARED, "lr": 0.02, "recovery": 5}),
    "last blocks at random": _d3(restart=LAST),
    "last blocks from the base": _d3(True, restart=LAST),
    "last blocks from the base, no distance": _d3(True, restart=LAST, **UNPUSHED),
    "whole body from the base": _d3(True, restart=BODY),
    "whole body from the base, no distillation": _d3(True, restart=BODY, distillation=0.0),
}


def suspect_spec(attack: str | None, seed: int) -> AttackSpec:
    """Return data, attack and recipe of one network."""
    return AttackSpec(
        data="cifar10",
        model=MODEL,
        attack=attack,
        ratio=0.1 if attack else 0.0,
        seed=seed,
        train=4_000,
        clean=500,
        training=TrainConfig(
            epochs=8,
            batch_size=32,
            lr=0.02,
            channels_last=True,
            augment=AUGMENTATIONS["cifar10"],
        ),
    )


def pretrained_jobs(
    attacks: list[str], seeds: list[int], test: int = 1_000
) -> tuple[list[FineTuned], list[tuple[str, PretrainedRepair]]]:
    """Return the jobs of clean and backdoored networks, and the repairs with their labels."""
    models = [FineTuned(suspect_spec(None, seed), test) for seed in seeds]
    suspects = [FineTuned(suspect_spec(name, seed), test) for name in attacks for seed in seeds]
    repairs = [
        (label, PretrainedRepair(suspect, line.defense, line.options, line.from_base))
        for suspect in suspects
        for label, line in LINES.items()
    ]
    return models + suspects, repairs


def pretrained(
    data_dir: Annotated[Path, typer.Option(help="CIFAR-10.")],
    out: Annotated[Path, typer.Option(help="Run directory.")] = Path("runs/pretrained"),
    attacks: Annotated[str, typer.Option(help="Attacks, comma-separated.")] = "badnets,blended",
    first_seed: Annotated[int, typer.Option(help="First seed.")] = 0,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 3,
    lines: Annotated[str | None, typer.Option(help="Labels of the lines, split by ';'.")] = None,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 1,
) -> None:
    """Run the jobs that are not finished and write ``pretrained-cpu.json``."""
    names = attacks.split(",")
    models, repairs = pretrained_jobs(names, list(range(first_seed, first_seed + seeds)))
    if lines is not None:
        repairs = [(label, job) for label, job in repairs if label in lines.split(";")]
    with start_workers(out, workers, data_dir) as pool:
        # The clean networks first: they set the floor.
        measured = [pool.run([job], title=job.name)[0] for job in models]
        repaired = pool.run([job for _, job in repairs], title="repairs")
    rows: list[Row] = [
        model_row(job, read_record(row, AttackRow, job.name))
        for job, row in zip(models, measured, strict=True)
    ]
    rows += [
        {"kind": "repair", "defense": label, "ablation": None, **row}
        for (label, _), row in zip(repairs, repaired, strict=True)
    ]
    arguments = f"pretrained --attacks {attacks} --seeds {seeds}"
    arguments += f" --first-seed {first_seed}" if first_seed else ""
    arguments += f' --lines "{lines}"' if lines else ""
    save("pretrained-cpu", arguments, {"spec": asdict(suspect_spec("badnets", 0))}, rows)
