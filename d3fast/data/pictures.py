# SPDX-License-Identifier: Apache-2.0
"""Image files, which may be hostile, to one tensor of images.

Every file must hold an image of at most ``MAX_PIXELS`` pixels in a format of ``SUFFIXES``. Grey
images have one channel, all others three; transparency must be unused. What is wrong is said in
one line that names the file.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d3fast.data.base import ImageData, Splits, draw_parts
from d3fast.io.places import read_bytes
from d3fast.io.untrusted import error_text, printable

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
MAX_PIXELS = 2**26  # of one image: a photograph has a third of that
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
_MAX_FILE = 2**27
_MAX_BYTES = 2**34  # of all images together

Box = tuple[int, int, int, int]  # left, upper, right, lower; the last two are just outside


@dataclass(frozen=True)
class Picture:
    """An image file that has not been read yet.

    Attributes:
        path: the file.
        label: index of its class.
        box: the part of the image to take; all of it if ``None``.
    """

    path: Path
    label: int
    box: Box | None = None


def read_picture(
    path: Path, *, size: int | None = None, channels: int | None = None, box: Box | None = None
) -> Tensor:
    """Read one image file.

    Args:
        path: the file; its content decides the format.
        size: height and width to stretch it to, bilinear and smoothed where that shrinks it; its
            own if ``None``.
        channels: 1 for grey, 3 for colours; what the file has if ``None``.
        box: the part of the image to take, before it is resized.

    Returns:
        (C, H, W), uint8.

    Raises:
        ValueError: no image of the formats known, a damaged or a huge one, used transparency, more
            than 8 bits per channel, a box outside the image.
        OSError: a file that cannot be opened.
    """
    from PIL import UnidentifiedImageError  # for image files alone, as in ``_decode``

    content = read_bytes(path, _MAX_FILE)
    try:
        with warnings.catch_warnings():
            # About odd metadata, and sizes that ``_decode`` refuses.
            warnings.simplefilter("ignore")
            return _decode(content, size, channels, box)
    except UnidentifiedImageError:
        raise ValueError(f"{printable(path)} is no image of a known format") from None
    except Exception as error:  # Pillow lets out whatever its parsers run into
        raise ValueError(f"{printable(path)} cannot be used: {error_text(error)}") from None


def _decode(content: bytes, size: int | None, channels: int | None, box: Box | None) -> Tensor:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"it has {width}x{height} pixels, more than {MAX_PIXELS}")
        if box is not None:
            left, upper, right, lower = box
            if not (0 <= left < right <= width and 0 <= upper < lower <= height):
                raise ValueError(f"its box {box} is not inside its {width}x{height} pixels")
        image.load()
        plain = _without_transparency(image)
    if channels is not None:
        plain = plain.convert("L" if channels == 1 else "RGB")
    if box is not None:
        plain = plain.crop(box)
    if size is not None:
        plain = plain.resize((size, size), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(plain))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _without_transparency(image: Any) -> Any:
    if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
        raise ValueError(f"its mode {image.mode} is not grey or colour of 8 bits")
    grey = image.mode in ("1", "L", "LA")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise ValueError("it has transparent pixels")
    return image.convert("L" if grey else "RGB")


def read_pictures(
    pictures: Sequence[Picture], *, size: int | None = None, channels: int | None = None
) -> Tensor:
    """Read image files of one size and kind.

    Args:
        pictures: at least one.
        size: as for ``read_picture``.
        channels: as for ``read_picture``.

    Returns:
        (N, C, H, W), uint8.

    Raises:
        ValueError: as for ``read_picture``; sizes or channel counts that differ; too many images
            to keep in memory.
        OSError: a file that cannot be opened.
    """
    images = torch.empty(0)
    for position, picture in enumerate(pictures):
        image = read_picture(picture.path, size=size, channels=channels, box=picture.box)
        if position == 0:
            needed = len(pictures) * image.numel()
            if needed > _MAX_BYTES:
                raise ValueError(
                    f"{len(pictures)} images of the size of {printable(picture.path)} take "
                    f"{needed} bytes, more than {_MAX_BYTES}: take fewer, or give a smaller size"
                )
            images = torch.empty((len(pictures), *image.shape), dtype=torch.uint8)
        if image.shape != images.shape[1:]:
            raise _unlike(picture.path, image.shape, pictures[0].path, images.shape[1:])
        images[position] = image
    return images


def _unlike(path: Path, shape: torch.Size, first: Path, first_shape: torch.Size) -> ValueError:
    if shape[0] != first_shape[0]:
        kinds = {1: "grey", 3: "colour"}
        return ValueError(
            f"{printable(path)} is {kinds[shape[0]]}, but {printable(first)} is "
            f"{kinds[first_shape[0]]}: convert the images to one kind"
        )
    sizes = [f"{width}x{height}" for _, height, width in (shape, first_shape)]
    return ValueError(
        f"{printable(path)} has {sizes[0]} pixels, but {printable(first)} has {sizes[1]}: "
        "give size to resize them all"
    )


def split_pictures(
    pictures: Sequence[Picture],
    test: Sequence[Picture] | None,
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
    """Draw the parts of a data set of image files, and read the files that were drawn, no others.

    Args:
        pictures: what train and clean parts are drawn from.
        test: the test images; drawn from ``pictures`` if ``None``, ``test_size`` of them.
        classes: names of the classes.
        seed: decides which image goes where.
        stream: name of the stream of random numbers.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        test_size: number of test images to draw.
        size: as for ``read_picture``.
        channels: as for ``read_picture``.

    Raises:
        ValueError: more images asked for than there are; as for ``read_pictures``.
        OSError: a file that cannot be opened.
    """
    labels = torch.tensor([picture.label for picture in pictures])
    drawn = draw_parts(labels, seed, stream, train=train, clean=clean, test=test_size)
    parts = [[pictures[i] for i in part.tolist()] for part in drawn]
    if test is not None:
        parts[2] = list(test)
    chosen = [picture for part in parts for picture in part]
    images = read_pictures(chosen, size=size, channels=channels)
    labels = torch.tensor([picture.label for picture in chosen])
    lengths = [len(part) for part in parts]
    data = [
        ImageData(some, which, classes)
        for some, which in zip(
            torch.split(images, lengths), torch.split(labels, lengths), strict=True
        )
    ]
    return Splits(*data)
