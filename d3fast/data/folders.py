# SPDX-License-Identifier: Apache-2.0
"""A user's own images: one folder per class.

    FOLDER/<class>/<image>              test images are drawn: one in five
    FOLDER/train/<class>/<image>        and FOLDER/test/<class>/<image>, or val instead of test

Classes are numbered in the order of their names. Hidden names and files of file managers
(Thumbs.db, desktop.ini) are skipped everywhere; files beside the class folders are skipped unless
they are images. A class folder may hold images only. Links may not lead out of FOLDER. All images
must have one size, unless a size to resize them to is given, and must be all grey or all colour.
"""

import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from d3fast.data.base import Splits
from d3fast.data.image_files import ImageFile, split_images
from d3fast.data.records import FileSource, Records
from d3fast.io.images import SUFFIXES, image_channels
from d3fast.io.paths import checked_file, checked_folder
from d3fast.io.untrusted import is_displayable, printable, read_limited
from d3fast.runtime.checks import check_integer

TEST_SHARE = 0.2
_SKIPPED = ("thumbs.db", "desktop.ini")
_EXAMPLE = re.compile(r"class_(\d{1,5})_example_\d+", re.ASCII)
_NUMBER, _MAX_NUMBER = re.compile(rb"\d{1,5}"), 64


def entries(folder: Path) -> list[Path]:
    """Return what is in a folder, by name, without hidden names and files of file managers."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _SKIPPED
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _class_folders(folder: Path, root: Path) -> dict[str, Path]:
    found = {}
    for path in entries(folder):
        if path.is_dir():
            if not is_displayable(path.name):  # class names are printed as they are
                raise ValueError(f"{printable(path)} cannot name a class: rename the folder")
            found[path.name] = checked_folder(path, root)
        elif _is_image(path):
            raise ValueError(
                f"{printable(path)} is not in a class folder: {printable(folder)} must hold one "
                "per class"
            )
    if not found:
        raise ValueError(f"{printable(folder)} holds no class folders")
    return found


def images_of(folder: Path, label: int, root: Path) -> list[ImageFile]:
    """Return the image files of a class folder, by name.

    Raises:
        ValueError: no images, other files or folders, links out of ``root``.
    """
    files = []
    for path in entries(folder):
        if not _is_image(path):
            kind = "a folder" if path.is_dir() else "not an image"
            raise ValueError(
                f"{printable(path)} is {kind}: a class folder may hold images only "
                f"({', '.join(SUFFIXES)})"
            )
        files.append(ImageFile(checked_file(path, root), label))
    if not files:
        raise ValueError(f"{printable(folder)} holds no images")
    return files


def _all_images(folder: Path, labels: dict[str, int], root: Path) -> list[ImageFile]:
    files = []
    for name, path in _class_folders(folder, root).items():
        if name not in labels:
            raise ValueError(f"{printable(path)} is a class without training images")
        files += images_of(path, labels[name], root)
    return files


def _has_folders(path: Path) -> bool:
    return path.is_dir() and any(entry.is_dir() for entry in entries(path))


def _listed(root: Path) -> tuple[list[ImageFile], list[ImageFile] | None, tuple[str, ...]]:
    """Return training images, test images if they have a folder of their own, and the classes."""
    if not root.is_dir():
        raise ValueError(f"{printable(root)} is missing or not a folder")
    train_root, test_root = root, None
    if _has_folders(root / "train"):  # a class may be called train: its folder holds images
        train_root = checked_folder(root / "train", root)
        tests = [root / name for name in ("test", "val") if (root / name).is_dir()]
        test_root = checked_folder(tests[0], root) if tests else None
    classes = tuple(_class_folders(train_root, root))
    labels = {name: label for label, name in enumerate(classes)}
    files = _all_images(train_root, labels, root)
    test = _all_images(test_root, labels, root) if test_root is not None else None
    return files, test, classes


def class_folders(path: Path) -> Records:
    """List all images of a folder with one folder per class.

    Raises:
        ValueError: as for ``folder``.
        OSError: a file that cannot be opened.
    """
    files, test, classes = _listed(path)
    files += test or []
    labels = torch.tensor([file.label for file in files])
    return _records([file.path for file in files], labels, classes)


def flat_images(path: Path) -> Records | None:
    """List the images of a folder without folders; ``None`` for another folder.

    They are unlabelled, unless all are named ``class_3_example_17.png`` or have a file ``17.json``
    beside them that holds the number of the class and nothing else, as in TrojAI.

    Raises:
        ValueError: a link out of the folder, or a special file; a class without an image.
        OSError: a file that cannot be opened.
    """
    found = entries(path)
    images = [entry for entry in found if _is_image(entry)]
    if not images or any(entry.is_dir() for entry in found):
        return None
    files = [checked_file(image, path) for image in images]
    numbers = _numbers_of(images, path)
    if numbers is None:
        return _records(files, None, None)
    classes = range(max(numbers) + 1)
    if missing := sorted(set(classes) - set(numbers)):
        raise ValueError(f"{printable(path)} holds no image of class {missing[0]}")
    records = _records(files, torch.tensor(numbers), tuple(map(str, classes)))
    note = "Labels are the numbers of classes in the names of the images, or beside them."
    return replace(records, notes=(*records.notes, note))


def _numbers_of(images: list[Path], root: Path) -> list[int] | None:
    """Return the number of each image's class, if their names or files beside them say it."""
    named = [_EXAMPLE.fullmatch(image.stem) for image in images]
    if all(named):
        return [int(found[1]) for found in named if found]
    beside = [image.with_suffix(".json") for image in images]
    if not all(path.is_file() and path.stat().st_size <= _MAX_NUMBER for path in beside):
        return None
    texts = [read_limited(checked_file(path, root), _MAX_NUMBER).strip() for path in beside]
    return [int(text) for text in texts] if all(map(_NUMBER.fullmatch, texts)) else None


def _records(paths: list[Path], labels: Tensor | None, classes: tuple[str, ...] | None) -> Records:
    sources = [FileSource(path) for path in paths]
    return Records(sources, labels, classes, image_channels(sources[0].read(), sources[0].name))


def folder(
    seed: int,
    *,
    train: int | None,
    clean: int,
    data_dir: str | Path | None = None,
    size: int | None = None,
) -> Splits:
    """Load stratified parts of a folder of images.

    Only the images that were drawn are read.

    Args:
        seed: decides which image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: the folder.
        size: height and width to resize the images to; their own if ``None``.

    Raises:
        ValueError: ``data_dir`` is ``None`` or not a folder; a class without images, or a test
            class without training images; files that are not images, or images that differ in
            size or channels; links out of the folder; more images requested than there are; a
            size below 1.
        OSError: a file that cannot be opened.
    """
    if size is not None:
        check_integer("size", size, 1)
    if data_dir is None:
        raise ValueError("data_dir must be given for 'folder': a folder with one folder per class")
    files, test, classes = _listed(Path(data_dir))
    return split_images(
        files,
        test,
        classes,
        seed,
        "folder split",
        train=train,
        clean=clean,
        test_size=0 if test is not None else round(TEST_SHARE * len(files)),
        size=size,
    )
