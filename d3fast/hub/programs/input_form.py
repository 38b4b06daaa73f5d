# SPDX-License-Identifier: Apache-2.0
"""How a program takes images: order of the dimensions, range, and a fixed batch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from d3fast.hub.suspect import ImageInput, Request

MAX_BATCH = 256
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class InputForm:
    """What the images of a program look like.

    Attributes:
        channels: 1 or 3.
        size: height and width.
        layout: order of the dimensions; ``"flat"`` for one row of numbers, channels first.
        scale: white, as the program counts it: 1, or 255 for bytes.
        batch: number of images that the program takes at once; ``None`` for any.
    """

    channels: int
    size: tuple[int, int]
    layout: Literal["nchw", "nhwc", "nhw", "flat"] = "nchw"
    scale: float = 1.0
    batch: int | None = None

    def given(self, images: Tensor) -> Tensor:
        """Return images (N, C, H, W) as the program takes them, always as floating point."""
        scaled = images if self.scale == 1 else images * self.scale
        if self.layout == "nhwc":
            return scaled.permute(0, 2, 3, 1)
        if self.layout == "nhw":
            return scaled[:, 0]
        return scaled.flatten(1) if self.layout == "flat" else scaled

    def image_input(self, request: Request) -> ImageInput:
        """Return the same for the readers of the samples."""
        return ImageInput(self.channels, self.size, mean=request.mean, std=request.std)

    def notes(self) -> tuple[str, ...]:
        """Return what was inferred, one sentence each."""
        size = "x".join(map(str, (self.channels, *self.size)))
        order = {"nhwc": ", channels last", "nhw": "", "flat": ", as one row", "nchw": ""}
        scale = ", from 0 to 255" if self.scale != 1 else ""
        batch = "" if self.batch is None else f", {self.batch} at a time"
        return (f"The program takes images of {size}{order[self.layout]}{scale}{batch}.",)


def input_form(
    shape: Sequence[int | None] | None, dtype: torch.dtype | None, request: Request
) -> InputForm:
    """Return the form of an input from what the file declares.

    Args:
        shape: declared; ``None`` for sizes that are free.
        dtype: declared.
        request: size and channels of the samples where the file leaves them free.

    Raises:
        ValueError: an input that is no batch of images, or whose size nobody tells.

    Example:
        >>> input_form((None, 28, 28, 1), torch.uint8, Request("m.onnx")).notes()
        ('The program takes images of 1x28x28, channels last, from 0 to 255.',)
    """
    if dtype not in (*_FLOATS, torch.uint8):
        kind = str(dtype).removeprefix("torch.")
        raise ValueError(f"its input is of {kind}, images are floats or bytes")
    if shape is None or len(shape) not in (2, 3, 4):
        raise ValueError(f"its input has the shape {_shown(shape)}, which is none of images")
    batch = shape[0]
    if batch is not None and batch > MAX_BATCH:
        raise ValueError(f"it takes {batch} images at a time, more than {MAX_BATCH}")
    scale = 255.0 if dtype == torch.uint8 else 1.0
    if scale != 1 and request.mean is not None:
        raise ValueError("its input is of bytes, which have no mean and std: leave them out")
    if len(shape) == 2:
        channels, size = _flat(shape[1], request)
        return InputForm(channels, size, "flat", scale, batch)
    if len(shape) == 3:
        return InputForm(1, _size(shape[1:], request), "nhw", scale, batch)
    if shape[1] in (1, 3) or (shape[1] is None and shape[3] not in (1, 3)):
        channels = shape[1] or request.channels or 3
        return InputForm(channels, _size(shape[2:], request), "nchw", scale, batch)
    if shape[3] in (1, 3):
        return InputForm(shape[3] or 3, _size(shape[1:3], request), "nhwc", scale, batch)
    raise ValueError(f"its input has the shape {_shown(shape)}: neither 1 nor 3 channels")


def _size(declared: Sequence[int | None], request: Request) -> tuple[int, int]:
    height, width = (size or request.size for size in declared)
    if height is None or width is None:
        raise ValueError("it takes images of any size: give --size")
    if request.size is not None and (height, width) != (request.size, request.size):
        raise ValueError(f"it takes images of {height}x{width}, got --size {request.size}")
    return height, width


def _flat(numbers: int | None, request: Request) -> tuple[int, tuple[int, int]]:
    """Return channels and size of square images that are one row of numbers."""
    for channels in (request.channels,) if request.channels else (1, 3):
        side = request.size or math.isqrt((numbers or 0) // channels)
        if side and numbers in (None, channels * side**2):
            return channels, (side, side)
    raise ValueError(f"its input has the shape {_shown((None, numbers))}, which is none of images")


def _shown(shape: Sequence[int | None] | None) -> str:
    return "unknown" if shape is None else "x".join("?" if n is None else str(n) for n in shape)
