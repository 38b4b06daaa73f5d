# SPDX-License-Identifier: Apache-2.0
"""A data set of image files: the files that were drawn are read, and no others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from d3fast.data.base import ImageData, Splits, draw_parts
from d3fast.data.records import MAX_MEMORY, different_shape, room_for
from d3fast.io.images import Box, Fit, read_image


@dataclass(frozen=True)
class ImageFile:
    """An image file that has not been read yet.

    Attributes:
        path: the file.
        label: index of its class.
        box: the part of the image to crop; all of it if ``None``.
    """

    path: Path
    label: int
    box: Box | None = None


def read_images(
    files: Sequence[ImageFile], *, size: int | None = None, channels: int | None = None
) -> Tensor:
    """Read image files of one shape.

    Args:
        files: at least one.
        size: height and width to stretch images to; their own if ``None``.
        channels: as for ``read_image``.

    Returns:
        (N, C, H, W), uint8.

    Raises:
        ValueError: as for ``read_image``; sizes or channel counts that differ; too many images
            to keep in memory.
        OSError: a file that cannot be opened.
    """
    fit = Fit(None if size is None else (size, size))
    images = torch.empty(0)
    for position, file in enumerate(files):
        image = read_image(file.path, fit=fit, channels=channels, box=file.box)
        if position == 0:
            images = room_for(len(files), image, MAX_MEMORY)
        if image.shape != images.shape[1:]:
            raise different_shape(file.path, image.shape, files[0].path, images.shape[1:])
        images[position] = image
    return images


def split_images(
    files: Sequence[ImageFile],
    test: Sequence[ImageFile] | None,
    classes: tuple[str, ...],
    seed: int,
    stream: str,
    *,
    train: int | None,
    clean: int,
    test_size: int = 0,
    size: int | None = None,
    channels: int | None = None,
) -> Splits:
    """Draw train, clean and test parts of a data set of image files, and read those files.

    Args:
        files: the files that train and clean parts are drawn from.
        test: the test images; drawn from ``files`` if ``None``, ``test_size`` of them.
        classes: names of the classes.
        seed: decides which image goes where.
        stream: name of the stream of random numbers.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        test_size: number of test images to draw.
        size: as for ``read_images``.
        channels: as for ``read_image``.

    Raises:
        ValueError: more images requested than there are; as for ``read_images``.
        OSError: a file that cannot be opened.
    """
    labels = torch.tensor([file.label for file in files])
    drawn = draw_parts(labels, seed, stream, train=train, clean=clean, test=test_size)
    parts = [[files[i] for i in part.tolist()] for part in drawn]
    if test is not None:
        parts[2] = list(test)
    chosen = [file for part in parts for file in part]
    images = read_images(chosen, size=size, channels=channels)
    labels = torch.tensor([file.label for file in chosen])
    lengths = [len(part) for part in parts]
    data = [
        ImageData(some, which, classes)
        for some, which in zip(
            torch.split(images, lengths), torch.split(labels, lengths), strict=True
        )
    ]
    return Splits(*data)
