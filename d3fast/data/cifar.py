# SPDX-License-Identifier: Apache-2.0
"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 60,000 real 32x32 colour images each.

Read from the user's copy; nothing is downloaded. The binary and the Python version work, extracted
or as the .tar.gz file, and so does a copy as image files in ``train/<class>/`` and
``test/<class>/`` (``d3fast.data.class_images``; JPEGs are close to the originals, not equal). A
record of the binary version is a label (CIFAR-100: the coarse label, then the fine one, which is
used) and 3,072 bytes: red, green, blue, each row by row. The Python version is a pickle, which
``d3fast.io.plain_pickle`` reads without executing it.

The official test images are the test set; train and clean parts are drawn from the official
training images by seed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from d3fast.data.base import ImageData, Splits, draw_parts
from d3fast.data.class_images import has_class_images, read_class_images
from d3fast.data.locations import cache_dir
from d3fast.io.archives import read_tar_gz
from d3fast.io.paths import check_inside
from d3fast.io.plain_pickle import read_plain_pickle
from d3fast.io.untrusted import printable, read_limited

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CIFAR100_CLASSES = (
    "apple",
    "aquarium_fish",
    "baby",
    "bear",
    "beaver",
    "bed",
    "bee",
    "beetle",
    "bicycle",
    "bottle",
    "bowl",
    "boy",
    "bridge",
    "bus",
    "butterfly",
    "camel",
    "can",
    "castle",
    "caterpillar",
    "cattle",
    "chair",
    "chimpanzee",
    "clock",
    "cloud",
    "cockroach",
    "couch",
    "crab",
    "crocodile",
    "cup",
    "dinosaur",
    "dolphin",
    "elephant",
    "flatfish",
    "forest",
    "fox",
    "girl",
    "hamster",
    "house",
    "kangaroo",
    "keyboard",
    "lamp",
    "lawn_mower",
    "leopard",
    "lion",
    "lizard",
    "lobster",
    "man",
    "maple_tree",
    "motorcycle",
    "mountain",
    "mouse",
    "mushroom",
    "oak_tree",
    "orange",
    "orchid",
    "otter",
    "palm_tree",
    "pear",
    "pickup_truck",
    "pine_tree",
    "plain",
    "plate",
    "poppy",
    "porcupine",
    "possum",
    "rabbit",
    "raccoon",
    "ray",
    "road",
    "rocket",
    "rose",
    "sea",
    "seal",
    "shark",
    "shrew",
    "skunk",
    "skyscraper",
    "snail",
    "snake",
    "spider",
    "squirrel",
    "streetcar",
    "sunflower",
    "sweet_pepper",
    "table",
    "tank",
    "telephone",
    "television",
    "tiger",
    "tractor",
    "train",
    "trout",
    "tulip",
    "turtle",
    "wardrobe",
    "whale",
    "willow_tree",
    "wolf",
    "woman",
    "worm",
)
_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_MAX_FILE = 2**28
_MAX_ARCHIVE = 2**29


@dataclass(frozen=True)
class _Version:
    """Storage of one version of a data set."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    pickled: bool
    labels: str | int  # key of the labels, or number of label bytes before the pixels


@dataclass(frozen=True)
class _Collection:
    """One of the two data sets."""

    title: str
    name: str
    classes: tuple[str, ...]
    versions: tuple[_Version, ...]


_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR10 = _Collection(
    "CIFAR-10",
    "cifar10",
    CIFAR10_CLASSES,
    (
        _Version(
            "cifar-10-batches-bin",
            "cifar-10-binary.tar.gz",
            tuple(f"{batch}.bin" for batch in _BATCHES),
            "test_batch.bin",
            False,
            1,
        ),
        _Version(
            "cifar-10-batches-py", "cifar-10-python.tar.gz", _BATCHES, "test_batch", True, "labels"
        ),
    ),
)
_CIFAR100 = _Collection(
    "CIFAR-100",
    "cifar100",
    CIFAR100_CLASSES,
    (
        _Version(
            "cifar-100-binary", "cifar-100-binary.tar.gz", ("train.bin",), "test.bin", False, 2
        ),
        _Version(
            "cifar-100-python", "cifar-100-python.tar.gz", ("train",), "test", True, "fine_labels"
        ),
    ),
)


def _from_folder(folder: Path, root: Path, version: _Version) -> dict[str, bytes] | None:
    names = (*version.train, version.test)
    if not all((folder / name).is_file() for name in names):
        return None
    for part in (folder, *(folder / name for name in names)):
        check_inside(part, root)
    return {name: read_limited(folder / name, _MAX_FILE) for name in names}


def _from_archive(
    path: Path, versions: tuple[_Version, ...]
) -> tuple[_Version, dict[str, bytes]] | None:
    names = {name for version in versions for name in (*version.train, version.test)}
    found = read_tar_gz(path, names, _MAX_ARCHIVE)
    for version in versions:
        if found.keys() >= {*version.train, version.test}:
            return version, found
    return None


def _find(collection: _Collection, base: Path) -> tuple[Path, _Version, dict[str, bytes]]:
    if base.is_file():
        found = _from_archive(base, collection.versions)
        if found is not None:
            return base, *found
    for version in collection.versions:
        for folder in (base, base / version.folder):
            files = _from_folder(folder, base, version)
            if files is not None:
                return folder, version, files
        archive = base / version.archive
        if archive.is_file():
            check_inside(archive, base)
            found = _from_archive(archive, (version,))
            if found is not None:
                return archive, *found
    raise ValueError(f"{collection.title} is not in {printable(base)}; {_how_to_get(collection)}")


def _how_to_get(collection: _Collection) -> str:
    archives = " or ".join(version.archive for version in collection.versions)
    return (
        f"put {archives} of www.cs.toronto.edu/~kriz/cifar.html, or what is in it, or image files "
        "in train/CLASS and test/CLASS, into a folder and say --data-dir FOLDER"
    )


def _binary(content: bytes, label_bytes: int) -> tuple[Tensor, Tensor]:
    record = label_bytes + _PIXELS
    if not content or len(content) % record:
        raise ValueError(f"it must hold whole records of {record} bytes, has {len(content)} bytes")
    records = torch.frombuffer(bytearray(content), dtype=torch.uint8).reshape(-1, record)
    return records[:, label_bytes:], records[:, label_bytes - 1].long()


def _pickled(content: bytes, key: str) -> tuple[Tensor, Tensor]:
    batch: Mapping[str, Any] = read_plain_pickle(content)
    data, labels = batch.get("data"), batch.get(key)
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != _PIXELS:
        raise ValueError(f"it holds no data of (N, {_PIXELS}) bytes")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise ValueError(f"it must hold {len(data)} {key}")
    if not all(type(label) is int and 0 <= label < 256 for label in labels):
        raise ValueError(f"its {key} are not class indices")
    return torch.from_numpy(data.copy(order="C")), torch.tensor(labels)


def _decode(
    files: Mapping[str, bytes], names: tuple[str, ...], version: _Version, classes: tuple[str, ...]
) -> ImageData:
    pixels: list[Tensor] = []
    labels: list[Tensor] = []
    for name in names:
        try:
            if isinstance(version.labels, str):
                some, which = _pickled(files[name], version.labels)
            else:
                some, which = _binary(files[name], version.labels)
            if pixels and len(some) != len(pixels[0]):
                raise ValueError(f"it must hold {len(pixels[0])} images, has {len(some)}")
            if int(which.max()) >= len(classes):
                raise ValueError(
                    f"its labels must be in 0..{len(classes) - 1}, got {int(which.max())}"
                )
        except ValueError as error:
            raise ValueError(f"{name} cannot be used: {error}") from None
        pixels.append(some)
        labels.append(which)
    return ImageData(torch.cat(pixels).reshape(-1, 3, 32, 32), torch.cat(labels), classes)


def _read(collection: _Collection, base: Path) -> tuple[ImageData, ImageData]:
    """Return the official training and test images."""
    if has_class_images(base, collection.classes):
        return read_class_images(base, collection.classes, _SHAPE)
    place, version, files = _find(collection, base)
    try:
        data = _decode(files, version.train, version, collection.classes)
        test = _decode(files, (version.test,), version, collection.classes)
    except ValueError as error:
        raise ValueError(
            f"{collection.title} in {printable(place)}: {error}; to get it "
            f"again, {_how_to_get(collection)}"
        ) from None
    return data, test


def _load(
    collection: _Collection, seed: int, train: int | None, clean: int, data_dir: str | Path | None
) -> Splits:
    base = Path(data_dir) if data_dir is not None else cache_dir(collection.name)
    data, test = _read(collection, base)
    parts = draw_parts(data.labels, seed, f"{collection.name} split", train=train, clean=clean)
    return Splits(data.subset(parts[0]), data.subset(parts[1]), test)


def cifar10(
    seed: int, *, train: int | None, clean: int, data_dir: str | Path | None = None
) -> Splits:
    """Load stratified parts of the 50,000 official training images, and the 10,000 test images.

    Args:
        seed: decides which training image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: the .tar.gz file, or a folder with it, with what is in it, or with
            ``train/<class>/<image>`` and ``test/<class>/<image>``;
            ``${XDG_CACHE_HOME:-~/.cache}/d3fast/cifar10`` if ``None``.

    Raises:
        ValueError: missing or damaged files (with the folder and how to get them); more images
            requested than there are.
        OSError: a file that cannot be opened.
    """
    return _load(_CIFAR10, seed, train, clean, data_dir)


def cifar100(
    seed: int, *, train: int | None, clean: int, data_dir: str | Path | None = None
) -> Splits:
    """Load CIFAR-100 with its 100 fine classes; arguments and errors are those of ``cifar10``."""
    return _load(_CIFAR100, seed, train, clean, data_dir)
