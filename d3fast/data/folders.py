# SPDX-License-Identifier: Apache-2.0
"""A user's own images: one folder per class.

    FOLDER/<class>/<image>              test images are drawn: one in five
    FOLDER/train/<class>/<image>        and FOLDER/test/<class>/<image>, or val instead of test

Classes are numbered in the order of their names. Hidden names and what file managers leave behind
(Thumbs.db, desktop.ini) are passed over everywhere, files beside the class folders too if they are
no images; inside a class folder everything else must be an image. Links may not lead out of
FOLDER. Images must be of one size, unless a size to stretch them to is given, and all grey or all
in colour.
"""

from pathlib import Path

from d3fast.data.base import Splits
from d3fast.data.pictures import SUFFIXES, Picture, split_pictures
from d3fast.io.places import checked_file, checked_folder
from d3fast.io.untrusted import is_displayable, printable
from d3fast.runtime.checks import check_integer

TEST_SHARE = 0.2
_LEFT_BEHIND = ("thumbs.db", "desktop.ini")


def _entries(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name.lower() not in _LEFT_BEHIND
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _class_folders(folder: Path, root: Path) -> dict[str, Path]:
    found = {}
    for path in _entries(folder):
        if path.is_dir():
            if not is_displayable(path.name):  # as the name of a class it would be printed as it is
                raise ValueError(f"{printable(path)} is no name for a class: rename the folder")
            found[path.name] = checked_folder(path, root)
        elif _is_image(path):
            raise ValueError(
                f"{printable(path)} is in no class folder: {printable(folder)} must hold one "
                "per class"
            )
    if not found:
        raise ValueError(f"{printable(folder)} holds no class folders")
    return found


def _pictures(folder: Path, label: int, root: Path) -> list[Picture]:
    pictures = []
    for path in _entries(folder):
        if not _is_image(path):
            what = "a folder" if path.is_dir() else "no image"
            raise ValueError(
                f"{printable(path)} is {what}: a class folder holds images alone "
                f"({', '.join(SUFFIXES)})"
            )
        pictures.append(Picture(checked_file(path, root), label))
    if not pictures:
        raise ValueError(f"{printable(folder)} holds no images")
    return pictures


def _listed(folder: Path, classes: tuple[str, ...], root: Path) -> list[Picture]:
    pictures = []
    for name, path in _class_folders(folder, root).items():
        if name not in classes:
            raise ValueError(f"{printable(path)} is a class that the training images do not have")
        pictures += _pictures(path, classes.index(name), root)
    return pictures


def _has_folders(path: Path) -> bool:
    return path.is_dir() and any(entry.is_dir() for entry in _entries(path))


def folder(
    seed: int,
    *,
    train: int | None,
    clean: int,
    data_dir: str | Path | None = None,
    size: int | None = None,
) -> Splits:
    """Stratified parts of a folder of images.

    Only the images that were drawn are read.

    Args:
        seed: decides which image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: the folder.
        size: height and width to stretch the images to; their own if ``None``.

    Raises:
        ValueError: no folder given, or none there; a class without images, or a test class
            without training images; files that are no images, or images that differ in size or
            kind; links out of the folder; more images asked for than there are; a size below 1.
        OSError: a file that cannot be opened.
    """
    if size is not None:
        check_integer("size", size, 1)
    if data_dir is None:
        raise ValueError("data_dir must be given for 'folder': a folder with one folder per class")
    root = Path(data_dir)
    if not root.is_dir():
        raise ValueError(f"{printable(root)} is missing or no folder")
    train_root, test_root = root, None
    if _has_folders(root / "train"):  # a class may have the name, its folder holds images
        train_root = checked_folder(root / "train", root)
        tests = [root / name for name in ("test", "val") if (root / name).is_dir()]
        test_root = checked_folder(tests[0], root) if tests else None
    classes = tuple(_class_folders(train_root, root))
    pictures = _listed(train_root, classes, root)
    test = _listed(test_root, classes, root) if test_root is not None else None
    return split_pictures(
        pictures,
        test,
        classes,
        seed,
        "folder split",
        train=train,
        clean=clean,
        test_size=0 if test is not None else round(TEST_SHARE * len(pictures)),
        size=size,
    )
