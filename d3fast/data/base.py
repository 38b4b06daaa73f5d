# SPDX-License-Identifier: Apache-2.0
"""Image data in memory: a tensor of images, a tensor of labels, and batches of them.

Images are uint8 (N, C, H, W), a quarter of the size of floats, and are moved to a device once.
``Batches`` indexes them there and yields floats in [0, 1]; training needs no worker processes and
no copies from host to device.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from d3fast.io.untrusted import is_displayable, printable
from d3fast.runtime.checks import check_integer
from d3fast.runtime.seeding import generator as seeded


def as_float(images: Tensor) -> Tensor:
    """Return images as floats in [0, 1]; uint8 is divided by 255, floats are unchanged."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def on_floats(images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply a function of (N, C, H, W) floats to images (..., C, H, W) of any dtype.

    Args:
        images: floats in [0, 1], or uint8.
        change: (N, C, H, W) float32 or float64 to the same; its result is clamped to [0, 1].

    Returns:
        New images of the given dtype and shape; uint8 is rounded to the nearest level.

    Example:
        >>> on_floats(torch.tensor([[[0, 10]]], dtype=torch.uint8), lambda x: 2 * x)
        tensor([[[ 0, 20]]], dtype=torch.uint8)
    """
    # Not -1, which an empty batch or image leaves undetermined.
    work = as_float(images).reshape(images.shape[:-3].numel(), *images.shape[-3:])
    changed = change(work if work.dtype == torch.float64 else work.float())
    changed = changed.clamp(0, 1).reshape(images.shape)
    if images.dtype == torch.uint8:
        changed = (255 * changed).round()
    return changed.to(images.dtype)


@dataclass(frozen=True, eq=False)
class ImageData:
    """Labelled images of one shape.

    Attributes:
        images: (N, C, H, W), uint8, or float in [0, 1].
        labels: (N,), int64 class indices.
        classes: names of the classes; their number is the number of classes.

    Raises:
        ValueError: shapes, dtypes or labels that do not fit together; a name with control
            characters or of more than 200 characters.

    Example:
        >>> data = ImageData(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4) % 2,
        ...                  ("a", "b"))
        >>> len(data), data.shape
        (4, (1, 8, 8))
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        bad = next((name for name in self.classes if not is_displayable(name)), None)
        if bad is not None:
            raise ValueError(
                f"classes must have names of one short line, got '{printable(bad, 80)}'"
            )
        if self.images.ndim != 4 or self.images.dtype not in (torch.uint8, torch.float32):
            raise ValueError(
                "images must be (N, C, H, W) of uint8 or float32, got shape "
                f"{tuple(self.images.shape)} of {self.images.dtype}"
            )
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            raise ValueError(
                f"labels must be ({len(self.images)},) of int64, got shape "
                f"{tuple(self.labels.shape)} of {self.labels.dtype}"
            )
        if len(self.labels):
            low, high = (int(v) for v in self.labels.aminmax())
            if low < 0 or high >= len(self.classes):
                raise ValueError(
                    f"labels must be in 0..{len(self.classes) - 1}, got {low if low < 0 else high}"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of one image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def inputs(self) -> Tensor:
        """The images."""
        return self.images

    def to(self, device: str | torch.device) -> "ImageData":
        """Return the same data on another device."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def subset(self, indices: Tensor) -> "ImageData":
        """Return the images at the given indices, in that order."""
        where = indices.to(self.images.device)
        return replace(self, images=self.images[where], labels=self.labels[where])

    def batches(self, batch_size: int, shuffle: torch.Generator | None = None) -> "Batches":
        """Return a loader; see ``Batches``."""
        return Batches(self, batch_size, shuffle)


class Batches:
    """A loader of (images in [0, 1], labels) on the data's device.

    Args:
        data: the images.
        batch_size: maximal number of images per batch. The images are spread evenly over as few
            batches as possible: a small last batch would disturb batch norm.
        shuffle: a CPU generator that permutes every pass; in order if ``None``.

    Raises:
        ValueError: a batch size below 1.

    Example:
        >>> data = ImageData(torch.zeros(5, 1, 2, 2, dtype=torch.uint8),
        ...                  torch.zeros(5, dtype=torch.long), ("a",))
        >>> [len(labels) for _, labels in Batches(data, batch_size=2)]
        [1, 2, 2]
        >>> [len(labels) for _, labels in Batches(data, batch_size=4)]
        [2, 3]
    """

    def __init__(
        self, data: ImageData, batch_size: int, shuffle: torch.Generator | None = None
    ) -> None:
        check_integer("batch_size", batch_size, 1)
        self.data = data
        self.batch_size = batch_size
        self.shuffle = shuffle

    def __len__(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        data = self.data
        if self.shuffle is not None:
            data = data.subset(torch.randperm(len(data), generator=self.shuffle))
        for batch in range(len(self)):
            start, end = (len(data) * edge // len(self) for edge in (batch, batch + 1))
            yield as_float(data.images[start:end]), data.labels[start:end]


def stratified_split(
    labels: Tensor, sizes: Sequence[int], generator: torch.Generator
) -> list[Tensor]:
    """Draw disjoint random parts of exact sizes that keep the proportions of the classes.

    In each part the count of every class differs by less than one from its exact share of the
    samples that earlier parts left over.

    Args:
        labels: (N,) class indices.
        sizes: size of each part; their sum may be less than N.
        generator: a CPU generator.

    Returns:
        One tensor of indices per part, in random order.

    Raises:
        ValueError: a negative size, or a sum of sizes above N.

    Example:
        >>> labels = torch.tensor([0] * 8 + [1] * 4)
        >>> parts = stratified_split(labels, [6, 3], torch.Generator().manual_seed(0))
        >>> [labels[part].bincount().tolist() for part in parts]
        [[4, 2], [2, 1]]
    """
    if min(sizes, default=0) < 0 or sum(sizes) > len(labels):
        raise ValueError(f"sizes must be >= 0 and sum to <= {len(labels)}, got {list(sizes)}")
    labels = labels.cpu()
    mixed = torch.randperm(len(labels), generator=generator)
    left = mixed[labels[mixed].argsort(stable=True)]  # class by class, random within a class
    parts = []
    for size in sizes:
        # Equally spaced positions in a list sorted by class: every class gets its share.
        taken = torch.arange(size) * len(left) // max(size, 1)
        keep = torch.ones(len(left), dtype=torch.bool)
        keep[taken] = False
        parts.append(left[taken][torch.randperm(size, generator=generator)])
        left = left[keep]
    return parts


def draw_parts(
    labels: Tensor, seed: int, stream: str, *, train: int | None, clean: int, test: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw stratified train, clean and test parts by seed.

    The test part is drawn first, so it does not depend on the sizes of the others.

    Args:
        labels: (N,) class indices.
        seed: decides which image goes where.
        stream: name of the stream of random numbers.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        test: number of test images to draw.

    Returns:
        Indices of the train, the clean and the test part.

    Raises:
        ValueError: negative numbers, or more images requested than there are.

    Example:
        >>> parts = draw_parts(torch.arange(10) % 2, 0, "split", train=None, clean=2, test=4)
        >>> [len(part) for part in parts]
        [4, 2, 4]
    """
    if train is None:
        train = max(len(labels) - test - clean, 0)
    parts = stratified_split(labels, [test, clean, train], seeded(seed, stream))
    return parts[2], parts[1], parts[0]


@dataclass(frozen=True)
class Splits:
    """The parts of a data set.

    Attributes:
        train: images of the (possibly malicious) trainer.
        clean: the defender's few samples, disjoint from the other two.
        test: images for evaluation; no defence sees them.
    """

    train: ImageData
    clean: ImageData
    test: ImageData

    def to(self, device: str | torch.device) -> "Splits":
        """Return all three parts on another device."""
        return Splits(self.train.to(device), self.clean.to(device), self.test.to(device))
