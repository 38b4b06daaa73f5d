# SPDX-License-Identifier: Apache-2.0
"""Data sets that need no download, in one registry.

Every entry is a function ``(seed, *, train, clean, data_dir) -> Splits``. To add one, add a file
with such a function and a row to ``DATASETS``.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from d3fast.checks import check_choice
from d3fast.data.base import Batches, ImageData, Splits, as_float, stratified_split
from d3fast.data.sklearn_digits import digits
from d3fast.data.fashion import fashion_mnist


class Dataset(Protocol):
    """What the registry holds."""

    def __call__(
        self, seed: int, *, train: int | None, clean: int, data_dir: str | Path | None = None
    ) -> Splits:
        """Cut the data set into train, clean and test parts."""


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {"digits": digits, "fashion-mnist": fashion_mnist}
)


def load(
    name: str,
    seed: int,
    *,
    train: int | None = None,
    clean: int,
    data_dir: str | Path | None = None,
) -> Splits:
    """Load a data set of the registry.

    Args:
        name: ``"digits"`` or ``"fashion-mnist"``.
        seed: decides which image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: where its files are, for data sets that have files.

    Raises:
        ValueError: an unknown name; files missing or damaged; more images asked for than there
            are.

    Example:
        >>> splits = load("digits", seed=0, clean=260)
        >>> len(splits.train), len(splits.clean), len(splits.test)
        (1177, 260, 360)
    """
    check_choice("data", name, DATASETS)
    return DATASETS[name](seed, train=train, clean=clean, data_dir=data_dir)


__all__ = [
    "DATASETS", "Batches", "Dataset", "ImageData", "Splits", "as_float", "digits",
    "fashion_mnist", "load", "stratified_split",
]  # fmt: skip
