# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, deprecated names, and the default folder of an audit."""

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from d3fast.audit.resolve import Audit
from d3fast.data.records import MAX_MEMORY
from d3fast.hub import Request
from d3fast.io.files import make_folder

AUDIT = Path("runs/audit")
OLD_AUDIT = Path("runs/case")  # the default until release 0.1.0
MAX_GIB = MAX_MEMORY / 2**30
# A second thread does not speed up layers this small, and waits long for busy cores.
_SMALL = 2**20

Model = Annotated[
    str,
    typer.Option(
        help="The suspect: a folder of Hugging Face, hf://org/name, timm:NAME, torchvision:NAME, a "
        "name from docs/data.md, or package.module:factory."
    ),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(help="Weights beside a name or a factory: .safetensors, or a torch.save file."),
]
Clean = Annotated[
    str,
    typer.Option(
        "--data",
        help="Clean samples: class folders, images, .npz, .csv, .jsonl, .parquet, .tar, .zip, a "
        "saved data set or hf://datasets/org/name; see docs/data.md.",
    ),
]
TextColumn = Annotated[str | None, typer.Option(help="Column of the texts in a table of samples.")]
LabelColumn = Annotated[str | None, typer.Option(help="Column of the labels.")]
ImageColumn = Annotated[str | None, typer.Option(help="Column of the images or their paths.")]
Split = Annotated[
    str | None, typer.Option(help="Part of a data set, such as test.  [default: all parts]")
]
MaxMemory = Annotated[
    float, typer.Option(min=0.001, help="Limit on the samples in memory, in GiB.")
]
Mean = Annotated[
    str | None,
    typer.Option(help="Mean of the normalisation, for images in [0, 1]: one number per channel."),
]
Std = Annotated[str | None, typer.Option(help="Standard deviation of the normalisation.")]
Size = Annotated[
    int | None,
    typer.Option(min=1, help="Resize images to SIZE x SIZE pixels.  [default: the model's size]"),
]
Answers = Annotated[
    str | None,
    typer.Option(help="One word per class, for a causal language model: --answers bad,good."),
]
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


def request(
    model: str,
    checkpoint: Path | None = None,
    *,
    mean: str | None = None,
    std: str | None = None,
    size: int | None = None,
    answers: str | None = None,
) -> Request:
    """Return the model that the options of a command name."""
    return Request(
        model,
        checkpoint,
        mean=_numbers(mean, "mean"),
        std=_numbers(std, "std"),
        size=size,
        answers=tuple(word.strip() for word in answers.split(",")) if answers else (),
    )


def _numbers(text: str | None, name: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} must be numbers like 0.5,0.5,0.5, got {text!r}") from None


def gibibytes(amount: float) -> int:
    """Return GiB as bytes."""
    return int(amount * 2**30)


def print_notes(audit: Audit) -> None:
    """Print what was inferred about model and samples to stderr, one line each."""
    for note in audit.notes:
        typer.echo(f"note: {note}", err=True)


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
