# SPDX-License-Identifier: Apache-2.0
"""Scikit-learn's handwritten digits: 1,797 real 8x8 grey images, no download.

The test set of UCI "Optical Recognition of Handwritten Digits" (Alpaydin, Kaynak 1998), 32x32
scans reduced to 8x8 counts from 0 to 16. It comes in one piece; train, clean and test parts are
drawn from it by seed.
"""

from pathlib import Path

import torch

from d3fast.data.base import ImageData, Splits, draw_parts
from d3fast.runtime.extras import require

CLASSES = tuple("0123456789")
TEST = 360


def all_digits() -> ImageData:
    """Return all 1,797 images, their counts of 0 to 16 scaled to 0..255."""
    require("the data set digits", "sklearn")
    from sklearn.datasets import load_digits  # slow to import, needed here only

    raw = load_digits()
    counts = torch.from_numpy(raw.images).unsqueeze(1)
    images = (counts * (255 / 16)).round().to(torch.uint8)
    return ImageData(images, torch.from_numpy(raw.target).long(), CLASSES)


def digits(
    seed: int, *, train: int | None, clean: int, data_dir: str | Path | None = None
) -> Splits:
    """Load stratified parts: 360 test images, ``clean`` for the defender, ``train`` of the rest.

    Args:
        seed: decides which image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: unused, the data is part of scikit-learn.

    Raises:
        ValueError: more images requested than there are.
    """
    data = all_digits()
    parts = draw_parts(data.labels, seed, "digits split", train=train, clean=clean, test=TEST)
    return Splits(*(data.subset(part) for part in parts))
