# SPDX-License-Identifier: Apache-2.0
"""A known data set as image files: ``train/<class>/<image>`` and ``test/<class>/<image>``.

Decoding 60,000 small JPEGs takes longer than a short training, so the decoded arrays are kept in
one .npz file of the cache folder. Its name is a hash of the paths, sizes and times of all files: a
changed copy is decoded again.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from d3fast.data.base import ImageData
from d3fast.data.folders import images_of
from d3fast.data.image_files import read_images
from d3fast.data.locations import cache_dir
from d3fast.io.arrays import open_npz
from d3fast.io.files import atomic_write, make_folder
from d3fast.io.paths import checked_folder
from d3fast.io.untrusted import printable

PARTS = ("train", "test")


def has_class_images(base: Path, classes: tuple[str, ...]) -> bool:
    """Return whether ``base`` has a folder of every class in both parts."""
    return all((base / part / name).is_dir() for part in PARTS for name in classes)


def read_class_images(
    base: Path, classes: tuple[str, ...], shape: tuple[int, int, int]
) -> tuple[ImageData, ImageData]:
    """Return the training and the test images of a data set with known classes.

    Args:
        base: the folder of ``train`` and ``test``.
        classes: names of the class folders, in the order of their labels.
        shape: (C, H, W) that every image must have.

    Raises:
        ValueError: a class folder without images or with other files, links out of ``base``, files
            that are not images, images of another shape.
        OSError: a file that cannot be opened.
    """
    kept = cache_dir("decoded") / f"{_digest(base, classes)}.npz"
    found = _cached(kept, classes, shape)
    if found is None:
        found = _decoded(base, classes, shape)
        make_folder(kept.parent)
        arrays = {}
        for part, data in zip(PARTS, found, strict=True):
            arrays[f"{part}_images"] = data.images.numpy()
            arrays[f"{part}_labels"] = data.labels.numpy()
        with atomic_write(kept) as file:
            np.savez(file, allow_pickle=False, **arrays)
    return found


def _listed(base: Path, classes: tuple[str, ...]) -> Iterator[str]:
    for part in PARTS:
        for name in classes:
            with os.scandir(base / part / name) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    about = entry.stat()
                    yield f"{part}/{name}/{entry.name} {about.st_size} {about.st_mtime_ns}\n"


def _digest(base: Path, classes: tuple[str, ...]) -> str:
    """Return 16 hexadecimal digits of a hash over the list of all files."""
    digest = hashlib.sha256(f"{base.resolve()}\n".encode())
    for line in _listed(base, classes):
        digest.update(line.encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _decoded(
    base: Path, classes: tuple[str, ...], shape: tuple[int, int, int]
) -> tuple[ImageData, ImageData]:
    parts = []
    for part in PARTS:
        root = checked_folder(base / part, base)
        files = []
        for label, name in enumerate(classes):
            files += images_of(checked_folder(root / name, base), label, base)
        images = read_images(files, channels=shape[0])
        if images.shape[1:] != shape:
            raise ValueError(
                f"{printable(root)} must hold images of {shape[2]}x{shape[1]} pixels, got "
                f"{images.shape[3]}x{images.shape[2]}"
            )
        labels = torch.tensor([file.label for file in files])
        parts.append(ImageData(images, labels, classes))
    return parts[0], parts[1]


def _cached(
    path: Path, classes: tuple[str, ...], shape: tuple[int, int, int]
) -> tuple[ImageData, ImageData] | None:
    """Return the images of a cache file; ``None`` if it is missing or damaged."""
    parts = []
    try:
        with open_npz(path) as file:
            for part in PARTS:
                images = torch.from_numpy(file.read(f"{part}_images"))
                labels = torch.from_numpy(file.read(f"{part}_labels"))
                parts.append(ImageData(images, labels, classes))
    except (KeyError, OSError, TypeError, ValueError):
        return None
    return (parts[0], parts[1]) if all(part.shape == shape for part in parts) else None
