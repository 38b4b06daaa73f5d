# SPDX-License-Identifier: Apache-2.0
"""A user's own samples: written as a .npz file, told apart by a fingerprint, named by a list."""

import hashlib
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from d3fast.data.base import ImageData
from d3fast.io.files import atomic_write
from d3fast.io.paths import read_lines
from d3fast.io.untrusted import printable

_MAX_LIST = 2**22  # bytes of a list of class names


class Labelled(Protocol):
    """Samples in memory: ``ImageData`` or ``TextData``."""

    @property
    def inputs(self) -> Tensor:
        """What a model takes, (N, ...)."""
        ...

    @property
    def labels(self) -> Tensor:
        """Class indices, (N,)."""
        ...


def read_classes(path: str | Path) -> tuple[str, ...]:
    """Read the names of a model's classes, one per line, in the order of its outputs.

    Raises:
        ValueError: an empty list, one that names a class twice, or a file that is no text.
        OSError: a file that cannot be opened.
    """
    classes = tuple(line.strip() for line in read_lines(Path(path), _MAX_LIST))
    if not classes:
        raise ValueError(f"{printable(path)} names no class")
    if len(set(classes)) < len(classes):
        raise ValueError(f"{printable(path)} names a class twice")
    return classes


def save_samples(data: ImageData, path: str | Path) -> None:
    """Write samples atomically as a .npz file that ``--data`` takes.

    Raises:
        ValueError: the folder does not exist.
    """
    images, labels = data.images.cpu().numpy(), data.labels.cpu().numpy()
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, images=images, labels=labels, classes=np.array(data.classes))


def fingerprint(data: Labelled) -> str:
    """Return the SHA-256 of inputs and labels, which tells whether two runs used the same samples.

    Example:
        >>> data = ImageData(torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.long), ("a",))
        >>> len(fingerprint(data)), fingerprint(data) == fingerprint(data.to("cpu"))
        (64, True)
    """
    digest = hashlib.sha256()
    for tensor in (data.inputs, data.labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
