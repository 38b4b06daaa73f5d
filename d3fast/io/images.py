# SPDX-License-Identifier: Apache-2.0
"""One image file from a stranger, decoded to a tensor.

A file must hold an image of at most ``MAX_PIXELS`` pixels in a format of ``SUFFIXES``. Grey images
have one channel, all others three; transparency must be unused. Every error is one line that names
the file.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d3fast.io.untrusted import error_text, printable, read_limited
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.runtime.extras import require

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp")
MAX_PIXELS = 2**26  # of one image: a photograph has a third of that
MAX_FILE = 2**27
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "WEBP")
_SCAN = b"\xff\xda"  # marker of a JPEG scan; each scan of a progressive image visits every pixel
_MAX_SCANS = 100
_MAX_SCANNED = 2**29  # pixels times scans

Box = tuple[int, int, int, int]  # left, upper, right, lower; the last two are exclusive


@dataclass(frozen=True)
class Fit:
    """How images of any size become images of one size, as torchvision and Pillow do it.

    Attributes:
        size: height and width; the image's own if ``None``.
        shorter: length to resize the shorter edge to before a centre crop of ``size``; ``None``
            stretches the image to ``size``. A crop beyond the image is filled with zeros.
        interpolation: one of ``INTERPOLATIONS``; all but nearest with antialiasing.

    Raises:
        ValueError: another interpolation; a length below 1.
    """

    size: tuple[int, int] | None = None
    shorter: int | None = None
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        check_choice("interpolation", self.interpolation, INTERPOLATIONS)
        for length in (*(self.size or ()), *(() if self.shorter is None else (self.shorter,))):
            check_integer("size", length, 1)

    def scaled(self, width: int, height: int) -> tuple[int, int]:
        """Return the width and height that an image is resized to, before the crop.

        Example:
            >>> Fit((224, 224), shorter=256).scaled(500, 375), Fit((4, 6)).scaled(500, 375)
            ((341, 256), (6, 4))
        """
        if self.shorter is None:
            return (self.size[1], self.size[0]) if self.size is not None else (width, height)
        longer = int(self.shorter * max(width, height) / min(width, height))
        return (self.shorter, longer) if width <= height else (longer, self.shorter)


def read_image(
    path: Path, *, fit: Fit | None = None, channels: int | None = None, box: Box | None = None
) -> Tensor:
    """Read one image file; see ``decode_image``.

    Raises:
        ValueError: as for ``decode_image``; a special file.
        OSError: a file that cannot be opened.
    """
    content = read_limited(path, MAX_FILE)
    return decode_image(content, path, fit=fit, channels=channels, box=box)


def decode_image(
    content: bytes,
    name: object,
    *,
    fit: Fit | None = None,
    channels: int | None = None,
    box: Box | None = None,
) -> Tensor:
    """Decode the bytes of an image file.

    Args:
        content: the bytes; they decide the format.
        name: of the file, for errors.
        fit: resizes and crops the image; its own size if ``None``.
        channels: 1 for grey, 3 for colour; as in the file if ``None``.
        box: the part of the image to crop, before it is resized.

    Returns:
        (C, H, W), uint8.

    Raises:
        ValueError: not an image of a known format, a damaged or a huge one, used transparency, more
            than 8 bits per channel, a box outside the image.
    """
    with _opening(content, name) as image:
        width, height = image.size
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
        return _pixels(_fitted(plain, fit or Fit()))


def image_channels(content: bytes, name: object) -> int:
    """Return 1 for a grey image and 3 for colour, from the beginning of a file's bytes.

    Raises:
        ValueError: as for ``decode_image``, as far as the header tells.
    """
    with _opening(content, name) as image:
        return 1 if image.mode in _GREY else 3


def fit_images(images: Tensor, fit: Fit, channels: int) -> Tensor:
    """Return images of another size or with other channels, as ``decode_image`` would make them.

    Args:
        images: (N, C, H, W), uint8 or float32, C 1 or 3.
        fit: resizes and crops every image.
        channels: 1 for grey, 3 for colour.
    """
    require("resizing images", "PIL")
    from PIL import Image

    if images.shape[1] == 1 and channels == 3:
        images = images.expand(-1, 3, -1, -1)
    elif images.shape[1] == 3 and channels == 1:
        # The weights of Pillow's conversion, ITU-R 601-2.
        grey = (images * torch.tensor((0.299, 0.587, 0.114))[:, None, None]).sum(1)
        images = (grey.round() if images.dtype == torch.uint8 else grey).to(images.dtype)[:, None]
    height, width = images.shape[2:]
    if fit.scaled(width, height) == (width, height) and fit.size in (None, (height, width)):
        return images.contiguous()
    planes = [_fitted(Image.fromarray(plane.numpy()), fit) for plane in images.flatten(0, 1)]
    rows = torch.stack([torch.from_numpy(np.array(plane)) for plane in planes])
    rows = rows if images.dtype == torch.uint8 else rows.clamp(0, 1)  # bicubic overshoots
    return rows.reshape(*images.shape[:2], *rows.shape[1:])


@contextmanager
def _opening(content: bytes, name: object) -> Iterator[Any]:
    """Open an image whose header keeps the limits; errors of the block name the file."""
    require(printable(name), "PIL")
    from PIL import Image, UnidentifiedImageError  # Pillow is loaded for image files only

    try:
        with warnings.catch_warnings():
            # About odd metadata, and sizes that are refused below.
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise ValueError(f"it has {width}x{height} pixels, more than {MAX_PIXELS}")
                scans = content.count(_SCAN) if image.format == "JPEG" else 1
                if scans > _MAX_SCANS or scans * width * height > _MAX_SCANNED:
                    raise ValueError(f"it has {scans} scans of {width}x{height} pixels, too many")
                if image.mode not in (*_GREY, *_COLOUR):
                    raise ValueError(f"its mode {image.mode} is not grey or colour of 8 bits")
                yield image
    except UnidentifiedImageError:
        raise ValueError(f"{printable(name)} is not an image of a known format") from None
    except Exception as error:  # Pillow raises all kinds of exceptions on bad bytes
        raise ValueError(f"{printable(name)} cannot be used: {error_text(error)}") from None


def _fitted(image: Any, fit: Fit) -> Any:
    """Return a Pillow image resized and cropped."""
    from PIL import Image

    scaled = fit.scaled(*image.size)
    if scaled != image.size:
        if scaled[0] * scaled[1] > MAX_PIXELS:
            raise ValueError(f"it would be resized to {scaled[0]}x{scaled[1]} pixels, too many")
        image = image.resize(scaled, Image.Resampling[fit.interpolation.upper()])
    if fit.size is None or fit.size == image.size[::-1]:
        return image
    height, width = fit.size
    left, top = (
        round((have - want) / 2) if have >= want else -((want - have) // 2)
        for have, want in zip(image.size, (width, height), strict=True)
    )
    return image.crop((left, top, left + width, top + height))


def _pixels(image: Any) -> Tensor:
    pixels = torch.from_numpy(np.array(image))
    return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def _without_transparency(image: Any) -> Any:
    grey = image.mode in _GREY
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            raise ValueError("it has transparent pixels")
    return image.convert("L" if grey else "RGB")
