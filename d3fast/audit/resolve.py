# SPDX-License-Identifier: Apache-2.0
"""An audit: a checkpoint from elsewhere and a few clean samples. No trigger, no test data.

Every command opens both with ``open_audit`` and writes its results into the folder of the audit.
``d3fast report`` reads them from there:

    inspect.json    d3fast inspect
    pilot.json      d3fast pilot
    card.json       d3fast detox, beside repaired.safetensors
    spectrum.json   d3fast spectrum
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from d3fast.data import ImageData, clean_samples, fingerprint, stratified_split
from d3fast.io.files import sha256
from d3fast.models import load_weights, make_model
from d3fast.runtime.devices import resolve_device
from d3fast.runtime.seeding import generator

INSPECTION, PILOT, CARD, SPECTRUM = "inspect.json", "pilot.json", "card.json", "spectrum.json"
REPAIRED, PAGE = "repaired.safetensors", "report.html"


@dataclass(frozen=True, eq=False)
class Audit:
    """A suspect and its clean samples.

    Attributes:
        model: the suspect, in eval mode, on its device.
        spec: its architecture; see ``make_model``.
        checkpoint: file of its weights.
        sha256: of that file, in hex.
        data: all clean samples, on the same device.
        seed: of the choice of held-out samples.
    """

    model: nn.Module
    spec: str
    checkpoint: Path
    sha256: str
    data: ImageData
    seed: int

    def parts(self, held_out: float = 0.25) -> tuple[ImageData, ImageData]:
        """Return samples to repair with and held-out samples; the same for every command.

        Args:
            held_out: share of the samples in the second part, stratified.

        Raises:
            ValueError: a share that leaves one of the two parts empty.
        """
        count = round(held_out * len(self.data))
        if not 0 < count < len(self.data):
            raise ValueError(
                f"{len(self.data)} clean samples cannot be split with a share of {held_out}"
            )
        labels = self.data.labels
        sizes = [count, len(self.data) - count]
        held, kept = stratified_split(labels, sizes, generator(self.seed, "held-out samples"))
        return self.data.subset(kept.sort().values), self.data.subset(held.sort().values)

    def settings(self) -> dict[str, Any]:
        """Return the settings for a results file; they name no folder."""
        return {
            "model": self.spec,
            "checkpoint": self.checkpoint.name,
            "sha256": self.sha256,
            "samples": len(self.data),
            "samples_sha256": fingerprint(self.data),
            "classes": list(self.data.classes),
            "seed": self.seed,
        }


def open_audit(
    spec: str,
    checkpoint: str | Path,
    data: str | Path,
    *,
    size: int | None = None,
    classes: str | Path | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Audit:
    """Read a suspect and its clean samples; the files may be hostile.

    Args:
        spec: a model of the registry or ``package.module:factory``; see ``make_model``.
        checkpoint: its weights; see ``load_weights``.
        data: a folder with one folder per class, or a .npz file; see ``clean_samples``, also for
            the next two.
        size: height and width to stretch images to.
        classes: list of the model's classes.
        device: where to compute; see ``resolve_device``.
        seed: of the audit.

    Raises:
        ValueError: a file that a reader refuses.
        OSError: a file that cannot be opened.
    """
    checkpoint, where = Path(checkpoint), resolve_device(device)
    samples = clean_samples(data, size=size, classes=classes)
    model = make_model(spec, len(samples.classes), samples.shape[0])
    load_weights(model, checkpoint)
    model.to(where).eval()
    return Audit(model, spec, checkpoint, sha256(checkpoint), samples.to(where), seed)
