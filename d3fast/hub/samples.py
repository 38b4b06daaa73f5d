# SPDX-License-Identifier: Apache-2.0
"""A user's clean samples, read as a suspect wants them.

    open_samples    lists a folder or a file: classes, channels, nothing decoded
    Samples         ``for_model`` decodes images or tokenizes texts, and numbers the labels

The order is: open the samples, ``resolve`` the model (a factory needs the number of classes), then
``for_model``.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from d3fast.data import ImageData, read_classes
from d3fast.data.columns import ANY_COLUMNS, Columns
from d3fast.data.dataset_folders import folder_records
from d3fast.data.npz_file import npz_arrays
from d3fast.data.records import MAX_MEMORY, Records, check_memory, decode_images
from d3fast.data.tables import TABLES, is_table, table_records
from d3fast.hub.hub_data import PREFIX, downloaded_data
from d3fast.hub.labels import match_classes
from d3fast.hub.suspect import ImageInput, Suspect, TextInput
from d3fast.io.images import Fit
from d3fast.io.untrusted import printable
from d3fast.text import TextData, encode
from d3fast.training.modes import eval_mode

Data: TypeAlias = ImageData | TextData
_BATCH = 64
_ID_BYTES = 8
_FORMS = (
    "a folder with one folder per class, a folder of tables, or a file whose name ends in .npz, "
    + ", ".join(TABLES)
)


@dataclass(frozen=True, eq=False)
class CleanSamples:
    """Samples in memory, as a suspect takes them.

    Attributes:
        data: images or token ids, with labels that count the suspect's classes.
        labelled: whether the labels came with the samples. Otherwise they are the suspect's own
            answers.
        notes: what was guessed, one sentence each.
    """

    data: Data
    labelled: bool
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Samples:
    """A list of samples that were not decoded yet.

    Attributes:
        records: images or texts with their labels.
        max_memory: limit on their bytes, decoded.
    """

    records: Records
    max_memory: int = MAX_MEMORY

    @classmethod
    def of(cls, data: ImageData) -> "Samples":
        """Return images in memory as samples."""
        return cls(Records(data.images, data.labels, data.classes, data.shape[0]))

    def without_labels(self) -> "Samples":
        """Return the same samples without their labels."""
        return replace(self, records=replace(self.records, labels=None, classes=None))

    @property
    def kind(self) -> Literal["images", "texts"]:
        """What the samples are."""
        return "texts" if self.records.channels is None else "images"

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, in the order of their numbers; ``None``: unlabelled."""
        return self.records.classes

    @property
    def channels(self) -> int | None:
        """1 for grey images, 3 for colour, ``None`` for texts."""
        return self.records.channels

    @property
    def notes(self) -> tuple[str, ...]:
        """What was guessed, one sentence each."""
        return self.records.notes

    def for_model(self, suspect: Suspect, classes: str | Path | None = None) -> CleanSamples:
        """Decode the samples as a suspect takes them.

        Args:
            suspect: says size, channels or tokenizer, and the classes. On any device.
            classes: file with the names of its outputs, one per line, in their order; it replaces
                the names that the suspect has.

        Raises:
            ValueError: images for a model of texts or the reverse; a class that the model lacks;
                a list of classes of another length than the model's; images that cannot be read;
                more than ``max_memory``.
            OSError: a file that cannot be opened.
        """
        if (self.kind == "texts") != isinstance(suspect.input, TextInput):
            takes = "texts" if isinstance(suspect.input, TextInput) else "images"
            raise ValueError(f"the model takes {takes}, the samples are {self.kind}")
        names = suspect.classes if classes is None else read_classes(classes)
        if suspect.classes is not None and names is not None and len(names) != len(suspect.classes):
            raise ValueError(
                f"{printable(classes)} must name {len(suspect.classes)} classes, one per output of "
                f"the model, got {len(names)}"
            )
        notes = list(self.notes)
        labels = self.records.labels
        if labels is not None and self.classes is not None and names is not None:
            positions, said = match_classes(self.classes, names)
            labels = torch.tensor(positions)[labels]
            notes += said
        inputs = self._inputs(suspect.input, notes)
        if labels is None:
            labels, outputs = _answers(suspect, inputs)
            names = names or tuple(map(str, range(outputs)))
            notes.append(
                "The samples have no labels: the model's own answers stand in for them, and "
                "accuracy is agreement with the model as it came."
            )
        known = names or self.classes
        assert known is not None  # of the model, of the samples, or of the answers
        data: Data = (
            TextData(inputs, labels, known, suspect.input.pad)
            if isinstance(suspect.input, TextInput)
            else ImageData(inputs, labels, known)
        )
        return CleanSamples(data, self.records.labels is not None, tuple(notes))

    def _inputs(self, wanted: ImageInput | TextInput, notes: list[str]) -> Tensor:
        records = self.records
        if isinstance(wanted, TextInput):
            check_memory(len(records), wanted.length * _ID_BYTES, self.max_memory)
            texts = [str(text) for text in records.inputs]
            return encode(
                texts, [0] * len(texts), wanted.tokenizer, classes=("",), length=wanted.length
            ).ids
        if self.channels != wanted.channels:
            kinds = {1: "grey", 3: "colour"}
            notes.append(
                f"The model takes {kinds[wanted.channels]} images: the samples were converted."
            )
        fit = Fit(wanted.size, wanted.shorter, wanted.interpolation)
        return decode_images(records, fit, wanted.channels, self.max_memory)


@torch.no_grad()
def _answers(suspect: Suspect, inputs: Tensor) -> tuple[Tensor, int]:
    """Return the suspect's answers to (N, ...) inputs, and the number of its outputs."""
    parameter = next(suspect.model.parameters(), torch.empty(0))
    answers, outputs = [], 0
    with eval_mode(suspect.model):
        for batch in torch.split(inputs, _BATCH):
            images = batch.float() / 255 if batch.dtype == torch.uint8 else batch
            scores = suspect.model(images.to(parameter.device))
            outputs = scores.shape[1]
            answers.append(scores.argmax(dim=1).cpu())
    return torch.cat(answers), outputs


def open_samples(
    path: str | Path,
    *,
    columns: Columns = ANY_COLUMNS,
    split: str | None = None,
    max_memory: int = MAX_MEMORY,
) -> Samples:
    """List the samples of a folder or a file.

    Args:
        path: a folder, a file, or ``hf://datasets/org/name``; docs/data.md lists the forms.
        columns: of a table.
        split: part of a data set; all parts if ``None``.
        max_memory: limit on the bytes of the samples, decoded.

    Raises:
        ValueError: a missing path; samples that the readers refuse.
        OSError: a file that cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as place:
        ...     images, labels = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2
        ...     np.savez(Path(place, "clean.npz"), images=images, labels=labels)
        ...     samples = open_samples(Path(place, "clean.npz"))
        >>> samples.kind, samples.classes, samples.channels
        ('images', ('0', '1'), 1)
    """
    if str(path).startswith(PREFIX):
        path = downloaded_data(str(path), max_memory)
    path = Path(path)
    if path.is_dir():
        records = folder_records(path, columns, split=split, max_memory=max_memory)
        return Samples(records, max_memory)
    if not path.exists():
        raise ValueError(f"{printable(path)} is missing: give {_FORMS}")
    if split is not None:
        raise ValueError(f"--split is for folders, got {split!r} for {printable(path)}")
    if path.suffix.lower() == ".npz":
        return Samples(npz_arrays(path, max_memory), max_memory)
    if not is_table(path):
        raise ValueError(f"{printable(path)} is no known form of samples: give {_FORMS}")
    return Samples(table_records([path], columns, max_memory=max_memory), max_memory)
