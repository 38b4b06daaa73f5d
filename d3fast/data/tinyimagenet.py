# SPDX-License-Identifier: Apache-2.0
"""Tiny ImageNet (Stanford CS231n 2015): 110,000 64x64 photographs, 200 classes of ImageNet.

Read from the user's folder ``tiny-imagenet-200``; nothing is downloaded. Grey photographs are
converted to colour. The labels of the official test images were never published: the official
validation images are the test set here, and train and clean parts are drawn from the official
training images by seed.
"""

import re
from pathlib import Path

from d3fast.data.base import Splits
from d3fast.data.image_files import ImageFile, split_images
from d3fast.data.locations import cache_dir
from d3fast.io.paths import (
    check_inside,
    check_plain_name,
    checked_file,
    checked_folder,
    read_lines,
)
from d3fast.io.untrusted import printable
from d3fast.runtime.checks import check_integer

FOLDER = "tiny-imagenet-200"
HOW_TO_GET_IT = (
    "unpack tiny-imagenet-200.zip of cs231n.stanford.edu into a folder and say --data-dir FOLDER"
)
_MAX_CLASSES = 1000


def _find(data_dir: str | Path | None) -> Path:
    base = Path(data_dir) if data_dir is not None else cache_dir("tiny-imagenet")
    for root in (base, base / FOLDER):
        if (root / "wnids.txt").is_file():
            return root
    raise ValueError(f"Tiny ImageNet's wnids.txt is not in {printable(base)}; {HOW_TO_GET_IT}")


def _wnids(root: Path) -> list[str]:
    """Return the WordNet ids of the classes, in the order of the file."""
    path = checked_file(root / "wnids.txt", root)
    wnids = [line.strip() for line in read_lines(path)]
    for wnid in wnids:
        if not re.fullmatch(r"n\d{8}", wnid, re.ASCII):
            raise ValueError(f"{printable(path)} must hold lines like n01443537, got {wnid!r:.80}")
    if not wnids or len(set(wnids)) < len(wnids) or len(wnids) > _MAX_CLASSES:
        raise ValueError(f"{printable(path)} must hold 1 to {_MAX_CLASSES} different classes")
    return wnids


def _names(root: Path, wnids: list[str]) -> tuple[str, ...]:
    """Return the first name of every class in words.txt, or its id where it has none."""
    path = root / "words.txt"
    check_inside(path, root)
    lines = read_lines(path) if path.exists() else []
    words = {wnid: names for wnid, _, names in (line.partition("\t") for line in lines)}
    first = (words.get(wnid, "").split(",")[0].strip() for wnid in wnids)
    return tuple(name or wnid for name, wnid in zip(first, wnids, strict=True))


def _train(root: Path, wnids: list[str]) -> list[ImageFile]:
    files = []
    train = checked_folder(root / "train", root)
    for label, wnid in enumerate(wnids):
        folder = checked_folder(checked_folder(train / wnid, root) / "images", root)
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        if not paths:
            raise ValueError(f"{printable(folder)} holds no images")
        files += [ImageFile(checked_file(path, root), label) for path in paths]
    return files


def _validation(root: Path, wnids: list[str]) -> list[ImageFile]:
    folder = checked_folder(root / "val", root)
    images = checked_folder(folder / "images", root)
    table = checked_file(folder / "val_annotations.txt", root)
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    files = []
    for number, line in enumerate(read_lines(table), start=1):
        name, wnid, *_ = [*line.split("\t"), "", ""]
        if wnid not in labels:
            raise ValueError(
                f"{printable(table)} must name a file and a class of wnids.txt, line {number} is "
                f"{line!r:.80}"
            )
        path = checked_file(images / check_plain_name(name, table), root)
        files.append(ImageFile(path, labels[wnid]))
    if not files:
        raise ValueError(f"{printable(table)} lists no images")
    return files


def tiny_imagenet(
    seed: int,
    *,
    train: int | None,
    clean: int,
    data_dir: str | Path | None = None,
    size: int | None = None,
) -> Splits:
    """Load stratified parts of the training images, and the official validation images.

    Only the images that were drawn are read.

    Args:
        seed: decides which training image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: the folder ``tiny-imagenet-200``, or the one that holds it;
            ``${XDG_CACHE_HOME:-~/.cache}/d3fast/tiny-imagenet`` if ``None``.
        size: height and width to resize the images to; their own 64 if ``None``.

    Raises:
        ValueError: missing or damaged files (with the folder and how to get them); more images
            requested than there are; a size below 1.
        OSError: a file that cannot be opened.
    """
    if size is not None:
        check_integer("size", size, 1)
    root = _find(data_dir)
    wnids = _wnids(root)
    return split_images(
        _train(root, wnids),
        _validation(root, wnids),
        _names(root, wnids),
        seed,
        "tiny-imagenet split",
        train=train,
        clean=clean,
        size=size,
        channels=3,
    )
