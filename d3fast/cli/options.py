# SPDX-License-Identifier: Apache-2.0
"""The options that several commands have, said once."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

# Layers of models this small gain nothing from a second thread, and on busy cores wait long for it.
_SMALL = 2**20

Checkpoint = Annotated[
    Path, typer.Option(help="The suspect's weights: .safetensors, or a torch.save file.")
]
Model = Annotated[
    str, typer.Option(help="A model of d3fast (docs/data.md lists them) or package.module:factory.")
]
Clean = Annotated[
    Path, typer.Option("--data", help="Clean samples: a folder with one folder per class, or .npz.")
]
Size = Annotated[int | None, typer.Option(min=1, help="Side that image files are stretched to.")]
Classes = Annotated[
    Path | None,
    typer.Option(help="Text file: the model's classes in the order of its outputs, one per line."),
]
Out = Annotated[Path, typer.Option(help="Folder of this case, shared by all commands.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything random.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Progress = Annotated[bool, typer.Option(help="Show progress bars.")]

DataDir = Annotated[
    Path | None, typer.Option(help="Folder or file of the data set, where it has any.")
]
Seeds = Annotated[int | None, typer.Option(min=1, help="Number of seeds.")]
FirstSeed = Annotated[int, typer.Option(min=0, help="First seed.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes; the number of cores on a CPU, else 1.")
]
Attacks = Annotated[
    str | None,
    typer.Option(help="Some attacks only, comma-separated, each NAME or NAME+ADAPTIVE."),
]

CASE = Path("runs/case")


def renamed(old: str, new: str, value: Any, current: Any) -> Any:
    """Return the value of an option; warn if it was given under its deprecated name.

    Args:
        old: deprecated name.
        new: present name.
        value: what was given under the deprecated name, or ``None``.
        current: what was given under the present name.
    """
    if value is None:
        return current
    typer.echo(f"warning: {old} is now {new}", err=True)
    return value


def settle_threads(model: nn.Module) -> None:
    """One CPU thread for a small model, all of them for a large one; the same on every run."""
    if sum(param.numel() for param in model.parameters()) < _SMALL:
        torch.set_num_threads(1)
