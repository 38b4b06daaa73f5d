# SPDX-License-Identifier: Apache-2.0
"""An audit: a model from elsewhere and a few clean samples. No trigger, no test data.

Every command opens both with ``open_audit`` and writes its results into the folder of the audit.
``d3fast report`` reads them from there:

    inspect.json    d3fast inspect
    pilot.json      d3fast pilot
    card.json       d3fast detox, beside repaired.safetensors
    spectrum.json   d3fast spectrum
    weights.json    d3fast check
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from d3fast.data import ImageData, fingerprint, read_classes, stratified_split
from d3fast.data.columns import ANY_COLUMNS, Columns
from d3fast.data.records import MAX_MEMORY
from d3fast.hub import Request, Samples, Suspect, open_samples, resolve
from d3fast.hub.samples import Data
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.seeding import generator

INSPECTION, PILOT, CARD, SPECTRUM = "inspect.json", "pilot.json", "card.json", "spectrum.json"
WEIGHTS = "weights.json"
REPAIRED, PAGE = "repaired.safetensors", "report.html"


@dataclass(frozen=True, eq=False)
class Audit:
    """A suspect and its clean samples.

    Attributes:
        suspect: the model as it was resolved.
        data: all clean samples, on the suspect's device.
        labelled: whether the samples came with labels; otherwise the labels are the suspect's own
            answers.
        notes: what was inferred about model and samples, one sentence each.
        seed: of the choice of held-out samples.
    """

    suspect: Suspect
    data: Data
    labelled: bool
    notes: tuple[str, ...]
    seed: int

    @property
    def model(self) -> nn.Module:
        """The suspect's module, in eval mode, on its device."""
        return self.suspect.model

    @property
    def spec(self) -> str:
        """How a command line names the model."""
        return self.suspect.spec

    @property
    def sha256(self) -> str:
        """Of the weights, in hex."""
        return self.suspect.sha256

    @property
    def checkpoint(self) -> str:
        """Name of the weight file; of several files, the name of the model."""
        files = self.suspect.files
        return files[0].name if len(files) == 1 else self.suspect.name

    @property
    def task(self) -> Literal["image", "text"]:
        """What the model classifies."""
        return "image" if isinstance(self.data, ImageData) else "text"

    def parts(self, held_out: float = 0.25) -> tuple[Data, Data]:
        """Return samples to repair with and held-out samples; the same for every command.

        Args:
            held_out: share of the samples in the second part, stratified.

        Raises:
            ValueError: a share that leaves one of the two parts empty.
        """
        return held_out_parts(self.data, held_out, self.seed)

    def settings(self) -> dict[str, Any]:
        """Return the settings for a results file; they name no folder."""
        return {
            "model": self.spec,
            "checkpoint": self.checkpoint,
            "sha256": self.sha256,
            "samples": len(self.data),
            "samples_sha256": fingerprint(self.data),
            "classes": list(self.data.classes),
            "labelled": self.labelled,
            "seed": self.seed,
        }


def held_out_parts(data: Data, share: float, seed: int) -> tuple[Data, Data]:
    """Return samples to repair with and held-out samples.

    Args:
        data: all clean samples.
        share: of the samples in the second part, stratified.
        seed: of the choice.

    Raises:
        ValueError: a share that leaves one of the two parts empty.
    """
    count = round(share * len(data))
    if not 0 < count < len(data):
        raise ValueError(f"{len(data)} clean samples cannot be split with a share of {share}")
    sizes = [count, len(data) - count]
    held, kept = stratified_split(data.labels, sizes, generator(seed, "held-out samples"))
    return data.subset(kept.sort().values), data.subset(held.sort().values)


def images_of(data: Data) -> ImageData:
    """Return samples that must be images.

    Raises:
        ValueError: texts.
    """
    if isinstance(data, ImageData):
        return data
    raise ValueError("this command takes a model of images, the samples are texts")


def open_audit(
    request: Request,
    data: str | Path | Samples,
    *,
    columns: Columns = ANY_COLUMNS,
    split: str | None = None,
    classes: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
    max_memory: int = MAX_MEMORY,
    resolver: Callable[[Request], Suspect] = resolve,
) -> Audit:
    """Read a suspect and its clean samples; the files may be hostile.

    Args:
        request: the model; its ``classes`` and ``channels`` are set to those of the samples.
        data: the clean samples, see ``open_samples``, also for the next two and ``max_memory``.
        columns: of a table of samples.
        split: part of a data set.
        classes: file with the names of the model's classes, one per line, in the order of its
            outputs. A model without names of its own needs it if it has other classes than the
            samples, or another order.
        device: where to compute; see ``resolve_device``.
        seed: of the audit.
        max_memory: limit on the bytes of the samples, decoded.
        resolver: reads the model.

    Raises:
        ValueError: a file that a reader refuses; samples that do not fit the model.
        OSError: a file that cannot be opened.
    """
    where = resolve_device(device)
    samples = (
        data
        if isinstance(data, Samples)
        else open_samples(data, columns=columns, split=split, max_memory=max_memory)
    )
    names = samples.classes if classes is None else read_classes(classes)
    count = None if names is None else len(names)
    suspect = resolver(replace(request, classes=count, channels=samples.channels))
    suspect.model.to(where).eval()
    clean = samples.for_model(suspect, None if classes is None else Path(classes))
    notes = (*suspect.notes, *clean.notes)
    return Audit(suspect, clean.data.to(where), clean.labelled, notes, seed)
