# SPDX-License-Identifier: Apache-2.0
"""A user's own clean samples: all images of a folder or of a .npz file, without a test part.

The readers are those of the data sets ``folder`` and ``npz``. Labels follow the order of the
folders' names, or a list of the model's classes.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch

from d3fast.data.base import ImageData
from d3fast.data.folders import folder
from d3fast.data.npz_file import npz
from d3fast.io.files import atomic_write
from d3fast.io.paths import read_lines
from d3fast.io.untrusted import printable

_MAX_LIST = 2**22  # bytes of a list of class names


def _renamed(data: ImageData, names: Path) -> ImageData:
    """Return the same images with labels that count in a file of class names."""
    classes = tuple(line.strip() for line in read_lines(names, _MAX_LIST))
    if len(set(classes)) < len(classes):
        raise ValueError(f"{printable(names)} names a class twice")
    unknown = sorted(set(data.classes) - set(classes))
    if unknown:
        raise ValueError(
            f"{printable(names)} must name every class of the samples, it lacks "
            f"'{printable(unknown[0], 80)}'"
        )
    positions = {name: position for position, name in enumerate(classes)}
    labels = torch.tensor([positions[name] for name in data.classes])
    return ImageData(data.images, labels[data.labels], classes)


def clean_samples(
    path: str | Path, *, size: int | None = None, classes: str | Path | None = None
) -> ImageData:
    """Load all images of a folder with one folder per class, or of a .npz file.

    Args:
        path: the folder or the file; see ``d3fast.data.folders`` and ``d3fast.data.npz_file``.
        size: height and width to resize a folder's images to; their own if ``None``.
        classes: a text file with the names of the model's classes, one per line, in the order of
            the model's outputs. It is needed for a model with another order or with more classes
            than the samples have. Without it, classes are numbered in the order of their names.

    Returns:
        The images, (N, C, H, W), on the CPU.

    Raises:
        ValueError: a missing path; samples that the readers refuse; a size for a .npz file; a
            class that the list lacks or names twice.
        OSError: a file that cannot be opened.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as place:
        ...     images, labels = np.zeros((6, 4, 4), np.uint8), np.arange(6) % 2
        ...     np.savez(Path(place, "clean.npz"), images=images, labels=labels)
        ...     len(clean_samples(Path(place, "clean.npz")))
        6
    """
    path = Path(path)
    if path.is_dir():
        parts = folder(0, train=None, clean=0, data_dir=path, size=size)
    elif not path.exists():
        raise ValueError(
            f"{printable(path)} is missing: give a folder with one folder per class, or a .npz"
        )
    elif size is not None:
        raise ValueError(f"size is for folders of images, got {size} for {printable(path)}")
    else:
        parts = npz(0, train=None, clean=0, data_dir=path)
    data = ImageData(
        torch.cat([parts.train.images, parts.test.images]),
        torch.cat([parts.train.labels, parts.test.labels]),
        parts.train.classes,
    )
    return data if classes is None else _renamed(data, Path(classes))


def save_samples(data: ImageData, path: str | Path) -> None:
    """Write samples atomically as a .npz file that ``clean_samples`` reads.

    Raises:
        ValueError: the folder does not exist.
    """
    images, labels = data.images.cpu().numpy(), data.labels.cpu().numpy()
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, images=images, labels=labels, classes=np.array(data.classes))


def fingerprint(data: ImageData) -> str:
    """Return the SHA-256 of images and labels, which tells whether two runs used the same samples.

    Example:
        >>> data = ImageData(torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.long), ("a",))
        >>> len(fingerprint(data)), fingerprint(data) == fingerprint(data.to("cpu"))
        (64, True)
    """
    digest = hashlib.sha256()
    for tensor in (data.images, data.labels):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
