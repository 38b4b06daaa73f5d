# SPDX-License-Identifier: Apache-2.0
"""Samples as a reader lists them: images or texts, their labels, nothing decoded yet.

A reader of ``d3fast.data`` turns a folder or a file into ``Records``. Which sizes, channels or
tokens a model wants is decided later: ``decode_images`` makes the tensor.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from d3fast.io.images import MAX_FILE, Fit, decode_image, fit_images
from d3fast.io.untrusted import is_displayable, printable, read_limited

MAX_MEMORY = 2**32  # bytes of all samples of an audit, decoded; --max-memory
MAX_CLASSES = 2**16
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,8})", re.ASCII)


class Source(Protocol):
    """The bytes of one image file, wherever they are."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    def read(self) -> bytes:
        """Return the bytes."""
        ...


@dataclass(frozen=True)
class FileSource:
    """An image file of its own.

    Attributes:
        path: the file.
    """

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def read(self) -> bytes:
        """Return the bytes of a regular file of at most 128 MiB."""
        return read_limited(self.path, MAX_FILE)


@dataclass(frozen=True, eq=False)
class Records:
    """Images or texts with their labels.

    Attributes:
        inputs: image files, or texts, or the images themselves, (N, C, H, W).
        labels: (N,) int64 positions in ``classes``; ``None`` for unlabelled samples.
        classes: names of the classes; ``None`` for unlabelled samples.
        channels: 1 or 3, of the first image; ``None`` for texts.
        notes: what was guessed, one sentence each.

    Raises:
        ValueError: no samples; a class name that cannot be displayed.
    """

    inputs: Sequence[Source | str] | Tensor
    labels: Tensor | None
    classes: tuple[str, ...] | None
    channels: int | None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.inputs):
            raise ValueError("there are no samples")
        bad = next((name for name in self.classes or () if not is_displayable(name)), None)
        if bad is not None:
            raise ValueError(f"'{printable(bad, 80)}' is not a name of one short line for a class")

    def __len__(self) -> int:
        return len(self.inputs)


def number_labels(labels: Sequence[str]) -> tuple[tuple[str, ...], Tensor]:
    """Return the classes of labels and the label of every sample as a position among them.

    Integers keep their value: the classes count from 0 to the largest one. Other labels are
    numbered in the order of their names.

    Args:
        labels: the label of every sample, as a text.

    Raises:
        ValueError: an integer that is negative or above 65,535; too many classes.

    Example:
        >>> number_labels(["2", "0"]), number_labels(["dog", "cat"])
        ((('0', '1', '2'), tensor([2, 0])), (('cat', 'dog'), tensor([1, 0])))
    """
    names = sorted(set(labels))
    if all(_INTEGER.fullmatch(name) for name in names):
        numbers = torch.tensor([int(label) for label in labels], dtype=torch.int64)
        low, high = (int(end) for end in numbers.aminmax())
        if low < 0 or high >= MAX_CLASSES:
            wrong = low if low < 0 else high
            raise ValueError(f"labels must be in 0..{MAX_CLASSES - 1}, got {wrong}")
        return tuple(map(str, range(high + 1))), numbers
    if len(names) > MAX_CLASSES:
        raise ValueError(f"there are {len(names)} different labels, more than {MAX_CLASSES}")
    positions = {name: position for position, name in enumerate(names)}
    return tuple(names), torch.tensor([positions[label] for label in labels])


def decode_images(
    records: Records, fit: Fit, channels: int, max_memory: int = MAX_MEMORY
) -> Tensor:
    """Decode the images of records to one size.

    Args:
        records: of images.
        fit: resizes and crops every image.
        channels: 1 for grey, 3 for colour. Colour images become grey only if the first image has
            colour too: one colour image among grey ones is a mistake.
        max_memory: limit on the bytes of the result.

    Returns:
        (N, C, H, W), uint8, or float32 as the records' own.

    Raises:
        ValueError: images that cannot be read, or that differ in size; more than ``max_memory``.
        OSError: a file that cannot be opened.
    """
    if isinstance(records.inputs, Tensor):
        shape = (channels, *(fit.size or records.inputs.shape[2:]))
        nbytes = torch.Size(shape).numel() * records.inputs.dtype.itemsize
        check_memory(len(records), nbytes, max_memory)
        return fit_images(records.inputs, fit, channels)
    asked = None if channels == records.channels == 1 else channels
    first: tuple[str, torch.Size] | None = None
    images = torch.empty(0)
    sources = [source for source in records.inputs if not isinstance(source, str)]
    for position, source in enumerate(sources):
        image = decode_image(source.read(), source.name, fit=fit, channels=asked)
        if first is None:
            first = source.name, image.shape
            images = room_for(len(records), image, max_memory)
        if image.shape != first[1]:
            raise different_shape(source.name, image.shape, *first)
        images[position] = image
    return images


def check_memory(count: int, nbytes: int, max_memory: int) -> None:
    """Raise ``ValueError`` if samples take more than ``max_memory`` bytes.

    Args:
        count: number of samples.
        nbytes: bytes of one sample, decoded.
        max_memory: limit.
    """
    if count * nbytes > max_memory:
        raise ValueError(
            f"{count} samples of {nbytes} bytes each take {count * nbytes} bytes, more than "
            f"{max_memory}: take fewer, a smaller size, or a larger --max-memory"
        )


def room_for(count: int, image: Tensor, max_memory: int) -> Tensor:
    """Return an empty tensor for ``count`` images like one.

    Raises:
        ValueError: more than ``max_memory`` bytes, or more than there are.
    """
    check_memory(count, image.nbytes, max_memory)
    try:
        return torch.empty((count, *image.shape), dtype=image.dtype)
    except RuntimeError:  # torch's allocator on the CPU
        raise ValueError(
            f"{count} samples take {count * image.nbytes} bytes, more than there are: take fewer, "
            "or a smaller size"
        ) from None


def different_shape(
    name: object, shape: torch.Size, first: object, first_shape: torch.Size
) -> ValueError:
    """Return the error about an image that is not like the first one."""
    if shape[0] != first_shape[0]:
        kinds = {1: "grey", 3: "colour"}
        return ValueError(
            f"{printable(name)} is {kinds[shape[0]]}, but {printable(first)} is "
            f"{kinds[first_shape[0]]}: convert the images to one kind"
        )
    sizes = [f"{width}x{height}" for _, height, width in (shape, first_shape)]
    return ValueError(
        f"{printable(name)} has {sizes[0]} pixels, but {printable(first)} has {sizes[1]}: "
        "give size to resize them all"
    )
