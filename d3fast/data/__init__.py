# SPDX-License-Identifier: Apache-2.0
"""A registry of data sets, and readers of a user's own images. Nothing is downloaded.

Every entry is a function ``(seed, *, train, clean, data_dir) -> Splits``. To add one, add a file
with such a function and a row to ``DATASETS``, or to ``RESIZABLE`` if it takes a ``size`` too.
Other packages add theirs by entry points of the group ``d3fast.datasets``.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from d3fast.data.augment import AUGMENTATIONS, Augment, Augmented
from d3fast.data.base import Batches, ImageData, Splits, as_float, stratified_split
from d3fast.data.cifar import cifar10, cifar100
from d3fast.data.fashion import fashion_mnist
from d3fast.data.folders import folder
from d3fast.data.npz_file import npz
from d3fast.data.own import fingerprint, read_classes, save_samples
from d3fast.data.sklearn_digits import digits
from d3fast.data.tinyimagenet import tiny_imagenet
from d3fast.data.traffic_signs import gtsrb
from d3fast.runtime.checks import check_integer
from d3fast.runtime.plugins import Registry


class Dataset(Protocol):
    """A function of the registry."""

    def __call__(
        self, seed: int, *, train: int | None, clean: int, data_dir: str | Path | None = None
    ) -> Splits:
        """Split the data set into train, clean and test parts."""


class ResizableDataset(Protocol):
    """A data set of image files, which can be resized."""

    def __call__(
        self,
        seed: int,
        *,
        train: int | None,
        clean: int,
        data_dir: str | Path | None = None,
        size: int = ...,
    ) -> Splits:
        """Split the data set into train, clean and test parts of ``size`` x ``size`` images."""


RESIZABLE: Mapping[str, ResizableDataset] = MappingProxyType(
    {"gtsrb": gtsrb, "tiny-imagenet": tiny_imagenet, "folder": folder}
)
DATASETS: Registry[Dataset] = Registry(
    "dataset",
    "d3fast.datasets",
    {
        "digits": digits,
        "fashion-mnist": fashion_mnist,
        "cifar10": cifar10,
        "cifar100": cifar100,
        **RESIZABLE,
        "npz": npz,
    },
)


def load(
    name: str,
    seed: int,
    *,
    train: int | None = None,
    clean: int,
    data_dir: str | Path | None = None,
    size: int | None = None,
) -> Splits:
    """Load a data set of the registry.

    Args:
        name: a name of ``DATASETS``, or ``package.module:name``.
        seed: decides which image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: folder of the data set's files; the folder or file itself for ``"folder"`` and
            ``"npz"``.
        size: height and width to resize images of ``RESIZABLE`` data sets to; their own if
            ``None`` (GTSRB: 32).

    Raises:
        ValueError: an unknown name; missing or damaged files; more images requested than there
            are; a size below 1, or one for a data set that cannot be resized.
        OSError: a file that cannot be opened.

    Example:
        >>> splits = load("digits", seed=0, clean=260)
        >>> len(splits.train), len(splits.clean), len(splits.test)
        (1177, 260, 360)
    """
    found = DATASETS.find(name)
    if size is None:
        return found(seed, train=train, clean=clean, data_dir=data_dir)
    check_integer("size", size, 1)
    if name not in RESIZABLE:
        raise ValueError(f"size is for {', '.join(RESIZABLE)}, got {size} for {name}")
    return RESIZABLE[name](seed, train=train, clean=clean, data_dir=data_dir, size=size)


__all__ = [
    "AUGMENTATIONS",
    "DATASETS",
    "RESIZABLE",
    "Augment",
    "Augmented",
    "Batches",
    "Dataset",
    "ImageData",
    "ResizableDataset",
    "Splits",
    "as_float",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "fingerprint",
    "folder",
    "gtsrb",
    "load",
    "npz",
    "read_classes",
    "save_samples",
    "stratified_split",
    "tiny_imagenet",
]
