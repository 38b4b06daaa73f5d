# SPDX-License-Identifier: Apache-2.0
"""``d3fast demo``: parse options, run the demonstration, print its table, write its files."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import torch
import typer

from d3fast.benchmark.demo import run_seed
from d3fast.benchmark.presets import DEMO_PRESETS
from d3fast.benchmark.report.demo import write_report
from d3fast.cli import options
from d3fast.cli.config_file import ConfigFile
from d3fast.cli.output import Output
from d3fast.io.files import check_folder
from d3fast.runtime.checks import check_choice

Data = Enum("Data", {name: name for name in DEMO_PRESETS})  # type: ignore[misc]


def demo(
    config: ConfigFile,
    output: Output,
    dataset: Annotated[Data, typer.Option(help="Data set.")] = Data.digits,  # type: ignore[attr-defined]
    data: options.Deprecated = None,
    data_dir: options.DataDir = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds.")] = 3,
    first_seed: options.FirstSeed = 0,
    out: Annotated[Path, typer.Option(help="Folder for models, results and picture.")] = Path(
        "runs/demo"
    ),
    device: options.Device = "auto",
) -> None:
    """Train a backdoored model, repair it by D3 and by fine-tuning, and compare."""
    where = check_folder(out)
    chosen = options.renamed("--data", "--dataset", data, dataset.value)
    check_choice("dataset", chosen, DEMO_PRESETS)
    # A second thread does not speed up layers this small, and waits long for busy cores.
    torch.set_num_threads(1)
    preset = DEMO_PRESETS[chosen]
    given = ["--dataset", chosen, "--seeds", str(seeds), "--first-seed", str(first_seed)]
    runs = [
        run_seed(preset, seed, data_dir=data_dir, device=device, progress=output.bars)
        for seed in range(first_seed, first_seed + seeds)
    ]
    write_report(runs, preset, "d3fast demo " + " ".join(given), where, output.console)
    output.document(where / "results.json")
