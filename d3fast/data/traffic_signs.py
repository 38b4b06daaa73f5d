# SPDX-License-Identifier: Apache-2.0
"""GTSRB (Stallkamp, Schlipsing, Salmen, Igel 2011): 51,839 photographs of 43 German road signs.

Read from the user's copy of the official folders; nothing is downloaded. Images of 15x15 to
250x250 pixels are resized to one size. The official test images are the test set; train and clean
parts are drawn from the official training images by seed. Those come as tracks of 30 views of one
sign, so train and clean parts share signs; the test images share none with them.
"""

from pathlib import Path

from d3fast.data.base import Splits
from d3fast.data.image_files import ImageFile, split_images
from d3fast.data.locations import cache_dir
from d3fast.io.paths import (
    check_plain_name,
    checked_file,
    checked_folder,
    read_lines,
)
from d3fast.io.untrusted import printable
from d3fast.runtime.checks import check_integer

CLASSES = (
    "limit 20",
    "limit 30",
    "limit 50",
    "limit 60",
    "limit 70",
    "limit 80",
    "end of limit 80",
    "limit 100",
    "limit 120",
    "no passing",
    "no passing for trucks",
    "right of way at crossing",
    "priority road",
    "yield",
    "stop",
    "no vehicles",
    "no trucks",
    "no entry",
    "danger",
    "curve left",
    "curve right",
    "double curve",
    "bumpy road",
    "slippery road",
    "road narrows on the right",
    "road work",
    "traffic lights",
    "pedestrians",
    "children",
    "bicycles",
    "ice or snow",
    "wild animals",
    "end of all limits",
    "turn right",
    "turn left",
    "ahead only",
    "ahead or right",
    "ahead or left",
    "keep right",
    "keep left",
    "roundabout",
    "end of no passing",
    "end of no passing for trucks",
)
HOW_TO_GET_IT = (
    "unpack GTSRB_Final_Training_Images.zip, GTSRB_Final_Test_Images.zip and "
    "GTSRB_Final_Test_GT.zip of benchmark.ini.rub.de into a folder and say --data-dir FOLDER"
)
_TEST_TABLE = "GT-final_test.csv"


def _find(data_dir: str | Path | None) -> Path:
    base = Path(data_dir) if data_dir is not None else cache_dir("gtsrb")
    for root in (base, base / "GTSRB"):
        if (root / "Final_Training").is_dir() and (root / "Final_Test").is_dir():
            return root
    raise ValueError(
        f"GTSRB's Final_Training and Final_Test are not in {printable(base)}; {HOW_TO_GET_IT}"
    )


def _find_test_table(root: Path) -> Path:
    folders = [root / "Final_Test" / "Images", root / "Final_Test", root, root.parent]
    for folder in folders:
        if (folder / _TEST_TABLE).is_file():
            return checked_file(folder / _TEST_TABLE, root.parent)
    looked = " and ".join(str(folder) for folder in folders)
    raise ValueError(f"GTSRB's {_TEST_TABLE} is not in {looked}; {HOW_TO_GET_IT}")


def _rows(table: Path, images: Path, root: Path, label: int | None, crop: bool) -> list[ImageFile]:
    """Read a table of ``Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId``."""
    lines = read_lines(table)
    if not lines or not lines[0].startswith("Filename;"):
        raise ValueError(f"{printable(table)} does not start with the line Filename;Width;...")
    files = []
    for number, line in enumerate(lines[1:], start=2):
        name, *fields = line.split(";")
        try:
            _, _, left, upper, right, lower, class_id = map(int, fields)
        except ValueError:
            raise ValueError(
                f"{printable(table)} must hold a name and seven numbers per line, line {number} is "
                f"{line!r:.80}"
            ) from None
        if not 0 <= class_id < len(CLASSES) or label not in (None, class_id):
            expected = f"in 0..{len(CLASSES) - 1}" if label is None else str(label)
            raise ValueError(
                f"{printable(table)}: ClassId must be {expected}, line {number} has {class_id}"
            )
        path = checked_file(images / check_plain_name(name, table), root)
        files.append(ImageFile(path, class_id, (left, upper, right, lower) if crop else None))
    if not files:
        raise ValueError(f"{printable(table)} lists no images")
    return files


def gtsrb(
    seed: int,
    *,
    train: int | None,
    clean: int,
    data_dir: str | Path | None = None,
    size: int = 32,
    crop: bool = False,
) -> Splits:
    """Load stratified parts of the official training images, and the official test images.

    Only the images that were drawn are read.

    Args:
        seed: decides which training image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: folder that holds ``GTSRB``, or ``Final_Training`` and ``Final_Test``;
            ``${XDG_CACHE_HOME:-~/.cache}/d3fast/gtsrb`` if ``None``.
        size: height and width of the images.
        crop: crop each image to the box of its sign, as given in the tables.

    Raises:
        ValueError: missing or damaged files (with the folder and how to get them); more images
            requested than there are; a size below 1.
        OSError: a file that cannot be opened.
    """
    check_integer("size", size, 1)
    root = _find(data_dir)
    images = checked_folder(checked_folder(root / "Final_Training", root) / "Images", root)
    files: list[ImageFile] = []
    for label in range(len(CLASSES)):
        folder = checked_folder(images / f"{label:05d}", root)
        table = checked_file(folder / f"GT-{label:05d}.csv", root)
        files += _rows(table, folder, root, label, crop)
    test_images = checked_folder(checked_folder(root / "Final_Test", root) / "Images", root)
    test = _rows(_find_test_table(root), test_images, root, None, crop)
    return split_images(
        files,
        test,
        CLASSES,
        seed,
        "gtsrb split",
        train=train,
        clean=clean,
        size=size,
        channels=3,
    )
