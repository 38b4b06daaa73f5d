# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, deprecated names, and the default folder of an audit."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from d3fast.io.files import make_folder

AUDIT = Path("runs/audit")
OLD_AUDIT = Path("runs/case")  # the default until release 0.1.0
# A second thread does not speed up layers this small, and waits long for busy cores.
_SMALL = 2**20

Checkpoint = Annotated[
    Path, typer.Option(help="Weights of the suspect: .safetensors, or a torch.save file.")
]
Model = Annotated[
    str, typer.Option(help="Architecture: a name from docs/data.md, or package.module:factory.")
]
Clean = Annotated[
    Path, typer.Option("--data", help="Clean samples: a folder with one folder per class, or .npz.")
]
Size = Annotated[int | None, typer.Option(min=1, help="Resize image files to SIZE x SIZE pixels.")]
Classes = Annotated[
    Path | None,
    typer.Option(help="Text file with the class names in the order of the outputs, one per line."),
]
Out = Annotated[Path, typer.Option(help="Audit folder, shared by all commands.")]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Devices = Annotated[
    str, typer.Option(help="One worker per device: auto, cpu, cpu:4, cuda:0,cuda:1, ...")
]
Progress = Annotated[bool, typer.Option(help="Show progress bars.")]

DataDir = Annotated[
    Path | None, typer.Option(help="Folder or file of the data set, if it needs files.")
]
Seeds = Annotated[int | None, typer.Option(min=1, help="Number of seeds.")]
FirstSeed = Annotated[int, typer.Option(min=0, help="First seed.")]
Attacks = Annotated[
    str | None,
    typer.Option(help="Run only these attacks: NAME or NAME+ADAPTIVE, comma-separated."),
]

Deprecated = Annotated[str | None, typer.Option(hidden=True)]  # an old name of an option


def renamed(old: str, new: str, value: Any, current: Any) -> Any:
    """Return the value of an option; warn if it was given under its deprecated name.

    Args:
        old: deprecated name.
        new: present name.
        value: given under the deprecated name, or ``None``.
        current: given under the present name.
    """
    if value is None:
        return current
    typer.echo(f"warning: {old} is now {new}", err=True)
    return value


def audit_folder(out: Path) -> Path:
    """Make the folder of an audit and return it; mention the default of earlier releases."""
    if out == AUDIT and not AUDIT.exists() and OLD_AUDIT.is_dir():
        typer.echo(
            f"note: {AUDIT} is new; results of earlier releases are in {OLD_AUDIT} "
            f"(--out {OLD_AUDIT})",
            err=True,
        )
    return make_folder(out)


def existing_audit(folder: Path) -> Path:
    """Return the folder of an audit.

    Raises:
        ValueError: the default folder is missing, but that of earlier releases exists.
    """
    if folder == AUDIT and not AUDIT.exists() and OLD_AUDIT.is_dir():
        raise ValueError(f"{AUDIT} is missing; {OLD_AUDIT} has results of an earlier release")
    return folder


def limit_threads(model: nn.Module) -> None:
    """Use one CPU thread for a small model, all for a large one; the same in every run."""
    if sum(param.numel() for param in model.parameters()) < _SMALL:
        torch.set_num_threads(1)
