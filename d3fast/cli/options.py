# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, in groups, and deprecated names."""

from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn

from d3fast.audit.places import check_owner, default_folder
from d3fast.audit.resolve import Audit, open_audit
from d3fast.cli.exit_codes import exit_code
from d3fast.cli.output import Output
from d3fast.data.records import MAX_MEMORY
from d3fast.hub import Columns, Request, Samples, Suspect, open_samples, resolve
from d3fast.hub.normalisation import check_inputs
from d3fast.hub.samples import CleanSamples, Data
from d3fast.integrations.epoch_log import TRACKERS
from d3fast.io.files import check_folder
from d3fast.results.engines import ENGINES, EngineChoice
from d3fast.training.labels import MAPPINGS

MAX_GIB = MAX_MEMORY / 2**30
# A second thread does not speed up layers this small, and waits long for busy cores.
_SMALL = 2**20
_MODEL = (
    "The suspect: a folder of Hugging Face, hf://org/name, timm:NAME, torchvision:NAME, a weight "
    "file, a name from docs/data.md, or package.module:factory."
)

ModelArgument = Annotated[str, typer.Argument(help=_MODEL, metavar="MODEL")]
Model = Annotated[str, typer.Option(help=_MODEL)]
Clean = Annotated[
    str,
    typer.Option(
        "--data",
        help="Clean samples: class folders, images, .npz, .csv, .jsonl, .parquet, .tar, .zip, a "
        "saved data set or hf://datasets/org/name; see docs/data.md.",
    ),
]
OptionalClean = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Clean samples, as for d3fast repair; without them only weights are read."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(min=1, help="Resize images to SIZE x SIZE pixels; the model's size by default."),
]
Out = Annotated[
    Path | None, typer.Option(help="Folder of the audit; runs/NAME-SHA8 of the model by default.")
]
CalibrationFile = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        help="Scores of clean models, a file of d3fast calibrate.",
    ),
]
FailOn = Annotated[
    str, typer.Option(help="What gives exit code 1 or 3: signs, accuracy, both, or none.")
]
Log = Annotated[
    str | None,
    typer.Option("--log", help=f"Log every epoch, comma-separated: {', '.join(TRACKERS)}."),
]
Budget = Annotated[
    float | None,
    typer.Option(
        min=0.01, help="Fit the work into so many minutes: fewer classes, steps and epochs."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Devices = Annotated[
    str, typer.Option(help="One worker per device: auto, cpu, cpu:4, cuda:0,cuda:1, ...")
]

Store = Annotated[
    str | None,
    typer.Option(
        help="URL of the run folder for workers that share no disk, such as s3://bucket/run."
    ),
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder or file of the data set, if it needs files.")
]
Seeds = Annotated[int | None, typer.Option(min=1, help="Number of seeds.")]
FirstSeed = Annotated[int, typer.Option(min=0, help="First seed.")]
Attacks = Annotated[
    str | None,
    typer.Option(help="Run only these attacks: NAME or NAME+ADAPTIVE, comma-separated."),
]
LabelMapping = Annotated[
    str | None,
    typer.Option(
        help=f"Labels of poisoned images: {', '.join(MAPPINGS)}; the default depends on the attack."
    ),
]

Deprecated = Annotated[str | None, typer.Option(hidden=True)]  # an old name of an option


@dataclass(frozen=True)
class SuspectOptions:
    """What the user says of a model beside its name; see ``Request``."""

    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Weights beside a name or a factory: .safetensors or a torch file."),
    ] = None
    mean: Annotated[
        str | None,
        typer.Option(help="Mean of the normalisation of images in [0, 1], one number per channel."),
    ] = None
    std: Annotated[str | None, typer.Option(help="Standard deviation of the normalisation.")] = None
    size: Size = None
    answers: Annotated[
        str | None,
        typer.Option(help="One word per class, for a causal language model: --answers bad,good."),
    ] = None

    def request(self, model: str) -> Request:
        """Return the request for a model."""
        return Request(
            model,
            self.checkpoint,
            mean=_numbers(self.mean, "mean"),
            std=_numbers(self.std, "std"),
            size=self.size,
            answers=tuple(w.strip() for w in self.answers.split(",")) if self.answers else (),
        )


@dataclass(frozen=True)
class SampleOptions:
    """What the user says of the clean samples; see ``open_samples``."""

    text_column: Annotated[
        str | None, typer.Option(help="Column of the texts in a table of samples.")
    ] = None
    label_column: Annotated[str | None, typer.Option(help="Column of the labels.")] = None
    image_column: Annotated[
        str | None, typer.Option(help="Column of the images or their paths.")
    ] = None
    split: Annotated[
        str | None, typer.Option(help="Part of a data set, such as test; all by default.")
    ] = None
    classes: Annotated[
        Path | None,
        typer.Option(help="Text file with the names of the model's classes in their order."),
    ] = None
    max_memory: Annotated[
        float, typer.Option(min=0.001, help="Limit on the samples in memory, in GiB.")
    ] = MAX_GIB
    any_accuracy: Annotated[
        bool,
        typer.Option(
            "--any-accuracy",
            help="Go on where normalisation or labels look wrong.",
        ),
    ] = False

    def open(
        self,
        request: Request,
        data: str | Path | Samples,
        output: Output,
        *,
        device: str = "auto",
        seed: int = 0,
    ) -> Audit:
        """Open an audit and print what was inferred.

        Raises:
            ValueError: what ``open_audit`` raises; a normalisation or labels that look wrong,
                unless ``any_accuracy``.
        """
        audit = self.read(request, data, output, device=device, seed=seed)
        samples = CleanSamples(audit.data, audit.labelled, ())
        found = check_inputs(audit.suspect, samples, device=audit.data.labels.device)
        if found.error is not None and not self.any_accuracy:
            raise ValueError(f"{found.error}; --any-accuracy goes on all the same")
        output.notes([said for said in (found.error, found.note) if said is not None])
        return audit

    def read(
        self,
        request: Request,
        data: str | Path | Samples,
        output: Output,
        *,
        device: str = "auto",
        seed: int = 0,
        resolver: Callable[[Request], Suspect] = resolve,
    ) -> Audit:
        """Open an audit without a check of the samples; see ``open``.

        Raises:
            ValueError: what ``open_audit`` raises.
        """
        audit = open_audit(
            request,
            data,
            columns=self._columns,
            split=self.split,
            classes=self.classes,
            device=device,
            seed=seed,
            max_memory=self._bytes,
            resolver=resolver,
        )
        output.notes(audit.notes)
        limit_threads(audit.model)
        return audit

    def open_unlabelled(self, data: Path, audit: Audit) -> Data:
        """Return more samples for a repair, on the device of the audit; their labels are not read.

        Raises:
            ValueError, OSError: what ``open_samples`` and ``Samples.for_model`` raise.
        """
        samples = open_samples(
            data, columns=self._columns, split=self.split, max_memory=self._bytes
        )
        return samples.without_labels().for_model(audit.suspect).data.to(audit.data.labels.device)

    @property
    def _columns(self) -> Columns:
        return Columns(self.text_column, self.label_column, self.image_column)

    @property
    def _bytes(self) -> int:
        return int(self.max_memory * 2**30)


@dataclass(frozen=True)
class EngineOptions:
    """Where the jobs of a command run; see ``EngineChoice``."""

    engine: Annotated[
        str, typer.Option(help=f"{', '.join(ENGINES.builtin)}, or package.module:name.")
    ] = "local"
    address: Annotated[
        str | None, typer.Option(help="Of the Ray cluster; RAY_ADDRESS or this machine if none.")
    ] = None
    gpus_per_job: Annotated[
        float | None, typer.Option(help="Share of a GPU that a job of Ray needs, such as 0.5.")
    ] = None

    def choice(self, store: str | None = None) -> EngineChoice:
        """Return the engine.

        Raises:
            ValueError: what ``EngineChoice`` raises.
        """
        return EngineChoice(self.engine, self.address, self.gpus_per_job, store)


def _numbers(text: str | None, name: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} must be numbers like 0.5,0.5,0.5, got {text!r}") from None


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


def audit_folder(out: Path | None, audit: Audit) -> Path:
    """Return the folder of an audit, which need not exist yet.

    Args:
        out: of the command line; ``None`` for the default.
        audit: the suspect.

    Raises:
        ValueError: a file in the way, or results of another suspect in the folder.
        OSError: a folder that cannot be written to.
    """
    folder = default_folder(audit.suspect.name, audit.sha256) if out is None else out
    check_owner(check_folder(folder), audit.sha256)
    return folder


def leave(fails: Set[str], *, signs: bool | None = None, missed: bool = False) -> None:
    """End a command with the exit code of what it found; see ``exit_code``."""
    code = exit_code(signs, missed, fails)
    if code:
        raise typer.Exit(code)


def limit_threads(model: nn.Module) -> None:
    """Use one CPU thread for a small model, all for a large one; the same in every run."""
    if sum(param.numel() for param in model.parameters()) < _SMALL:
        torch.set_num_threads(1)
