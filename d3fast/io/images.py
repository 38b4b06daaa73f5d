# SPDX-License-Identifier: Apache-2.0
"""One image file from a stranger, decoded to a tensor.

A file must hold an image of at most ``MAX_PIXELS`` pixels in a format of ``SUFFIXES``. Grey images
have one channel, all others three; transparency must be unused. Every error is one line that names
the file.
"""

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d3fast.io.untrusted import error_text, printable, read_limited

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
MAX_PIXELS = 2**26  # of one image: a photograph has a third of that
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
_MAX_FILE = 2**27
_SCAN = b"\xff\xda"  # marker of a JPEG scan; each scan of a progressive image visits every pixel
_MAX_SCANS = 100
_MAX_SCANNED = 2**29  # pixels times scans

Box = tuple[int, int, int, int]  # left, upper, right, lower; the last two are exclusive


def read_image(
    path: Path, *, size: int | None = None, channels: int | None = None, box: Box | None = None
) -> Tensor:
    """Read one image file.

    Args:
        path: the file; its content decides the format.
        size: height and width to resize the image to, bilinear with antialiasing; its own if
            ``None``.
        channels: 1 for grey, 3 for colour; as in the file if ``None``.
        box: the part of the image to crop, before it is resized.

    Returns:
        (C, H, W), uint8.

    Raises:
        ValueError: not an image of a known format, a damaged or a huge one, used transparency, more
            than 8 bits per channel, a box outside the image.
        OSError: a file that cannot be opened.
    """
    from PIL import UnidentifiedImageError  # Pillow is loaded for image files only

    content = read_limited(path, _MAX_FILE)
    try:
        with warnings.catch_warnings():
            # About odd metadata, and sizes that ``_decode`` refuses.
            warnings.simplefilter("ignore")
            return _decode(content, size, channels, box)
    except UnidentifiedImageError:
        raise ValueError(f"{printable(path)} is not an image of a known format") from None
    except Exception as error:  # Pillow raises all kinds of exceptions on bad bytes
        raise ValueError(f"{printable(path)} cannot be used: {error_text(error)}") from None


def _decode(content: bytes, size: int | None, channels: int | None, box: Box | None) -> Tensor:
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"it has {width}x{height} pixels, more than {MAX_PIXELS}")
        scans = content.count(_SCAN) if image.format == "JPEG" else 1
        if scans > _MAX_SCANS or scans * width * height > _MAX_SCANNED:
            raise ValueError(f"it has {scans} scans of {width}x{height} pixels, too many")
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
