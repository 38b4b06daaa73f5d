# SPDX-License-Identifier: Apache-2.0
"""A user's own arrays in one .npz file, as numpy, Keras and MedMNIST write them.

    images, labels                                            test images are drawn: one in five
    x_train, y_train, x_test, y_test                          Keras
    train_images, train_labels, test_images, test_labels      MedMNIST

Images are (N, H, W), (N, H, W, C) or (N, C, H, W) with C = 1 or 3, uint8 or float in [0, 1];
labels (N,) or (N, 1), integers from 0 without gaps. An optional array ``classes`` holds the names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d3fast.data.base import ImageData, Splits, draw_parts
from d3fast.data.records import MAX_CLASSES, MAX_MEMORY, Records
from d3fast.io.arrays import NpzFile, open_npz
from d3fast.io.untrusted import error_text, is_displayable, printable

TEST_SHARE = 0.2
_KEYS = (
    ("images", "labels", "", ""),
    ("x_train", "y_train", "x_test", "y_test"),
    ("train_images", "train_labels", "test_images", "test_labels"),
)


def _images(array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise ValueError(f"images must be uint8 or float, its type is {array.dtype}")
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        first, last = array.shape[1] in (1, 3), array.shape[3] in (1, 3)
        if first == last:
            why = "could be either" if first else "has neither 1 nor 3 channels"
            raise ValueError(
                f"images must be (N, H, W, C) or (N, C, H, W), shape {array.shape} {why}"
            )
        array = array.transpose(0, 3, 1, 2) if last else array
    else:
        raise ValueError(
            f"images must be (N, H, W), (N, H, W, C) or (N, C, H, W), shape {array.shape} is not"
        )
    if array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise ValueError("float images must be in [0, 1]")
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _labels(array: np.ndarray[Any, Any], images: Tensor) -> Tensor:
    if array.dtype.kind not in "ui" or array.shape not in ((len(images),), (len(images), 1)):
        raise ValueError(
            f"labels must be ({len(images)},) integers, it is {array.shape} of {array.dtype}"
        )
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= MAX_CLASSES:
        raise ValueError(f"labels must be in 0..{MAX_CLASSES - 1}, got {low if low < 0 else high}")
    return torch.from_numpy(array.reshape(-1).astype(np.int64))


def _names(array: np.ndarray[Any, Any] | None, labels: Tensor) -> tuple[str, ...]:
    """Return the names of the classes: their numbers where the file has none."""
    counts = labels.bincount()
    gaps = (counts == 0).nonzero().flatten().tolist()
    if array is None:
        if gaps:
            raise ValueError(
                f"labels must count from 0 without gaps: none of the training images has {gaps[0]}"
            )
        return tuple(str(number) for number in range(len(counts)))
    if array.dtype.kind != "U" or array.ndim != 1 or not len(counts) <= len(array) <= MAX_CLASSES:
        raise ValueError(
            f"classes must be names, one for each of at least {len(counts)} labels, it is "
            f"{array.shape} of {array.dtype}"
        )
    names = tuple(array.tolist())
    for name in names:
        if not is_displayable(name):
            raise ValueError(f"'{printable(name, 80)}' is not a name of one short line")
    return names


@contextmanager
def _naming(key: str, path: Path) -> Iterator[None]:
    """Put the key and the file in front of an error of the ``with`` block."""
    try:
        yield
    except ValueError as error:
        raise ValueError(
            f"{key} in {printable(path)} cannot be used: {error_text(error)}"
        ) from None


def _part(file: NpzFile, path: Path, images_key: str, labels_key: str) -> tuple[Tensor, Tensor]:
    with _naming(images_key, path):
        images = _images(file.read(images_key))
    with _naming(labels_key, path):
        labels = _labels(file.read(labels_key), images)
    return images, labels


def _read(path: Path, max_memory: int = MAX_MEMORY) -> tuple[ImageData, ImageData | None]:
    """Return training and test images of a file, or all its images and ``None``."""
    if not path.is_file():
        raise ValueError(f"{printable(path)} is missing or not a regular file")
    with open_npz(path) as file:
        used = next((known for known in _KEYS if set(known[:2]) <= file.keys), None)
        if used is None:
            known = " or ".join(f"{pair[0]} and {pair[1]}" for pair in _KEYS)
            raise ValueError(
                f"{printable(path)} must hold {known}, it holds {printable(sorted(file.keys), 200)}"
            )
        images_key, labels_key, test_images_key, test_labels_key = used
        claimed = sum(file.members[f"{key}.npy"].file_size for key in file.keys & set(used))
        if claimed > max_memory:
            raise ValueError(
                f"{printable(path)} takes {claimed} bytes, more than {max_memory} (--max-memory)"
            )
        images, labels = _part(file, path, images_key, labels_key)
        given = None
        with _naming("classes", path):
            given = file.read("classes") if "classes" in file.keys else None
        with _naming(labels_key if given is None else "classes", path):
            names = _names(given, labels)
        if test_images_key not in file.keys:
            return ImageData(images, labels, names), None
        test_images, test_labels = _part(file, path, test_images_key, test_labels_key)
        with _naming(test_images_key, path):
            if test_images.shape[1:] != images.shape[1:] or test_images.dtype != images.dtype:
                raise ValueError(
                    f"test images are {tuple(test_images.shape[1:])} of {test_images.dtype}, "
                    f"training images {tuple(images.shape[1:])} of {images.dtype}"
                )
        with _naming(test_labels_key, path):
            test = ImageData(test_images, test_labels, names)
        return ImageData(images, labels, names), test


def npz_arrays(path: Path, max_memory: int = MAX_MEMORY) -> Records:
    """Return all images of a file, training and test images alike.

    Args:
        path: the file.
        max_memory: limit on the bytes of its arrays, unpacked.

    Raises:
        ValueError: as for ``npz``.
        OSError: a file that cannot be opened.
    """
    data, test = _read(path, max_memory)
    parts = [data] if test is None else [data, test]
    return Records(
        torch.cat([part.images for part in parts]),
        torch.cat([part.labels for part in parts]),
        data.classes,
        data.shape[0],
    )


def npz(seed: int, *, train: int | None, clean: int, data_dir: str | Path | None = None) -> Splits:
    """Load stratified parts of the arrays in a file.

    Args:
        seed: decides which image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: the file.

    Raises:
        ValueError: ``data_dir`` is ``None``; a damaged file, one that declares more than it holds
            or more than 4 GiB; arrays that are not images or labels; more images requested than
            there are.
        OSError: a file that cannot be opened.
    """
    if data_dir is None:
        raise ValueError("data_dir must be given for 'npz': a .npz file with images and labels")
    data, test = _read(Path(data_dir))
    test_size = 0 if test is not None else round(TEST_SHARE * len(data))
    drawn = draw_parts(data.labels, seed, "npz split", train=train, clean=clean, test=test_size)
    parts = [data.subset(part) for part in drawn]
    return Splits(parts[0], parts[1], parts[2] if test is None else test)
