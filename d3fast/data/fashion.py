# SPDX-License-Identifier: Apache-2.0
"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): 70,000 real 28x28 grey images, ten classes.

Read from the user's four IDX files, gzipped or not; nothing is downloaded.
The official test images are the test set; train and clean parts are drawn from the official
training images by seed.
"""

from pathlib import Path

from d3fast.data.base import ImageData, Splits, draw_parts
from d3fast.data.locations import cache_dir
from d3fast.io.idx import read_idx
from d3fast.io.untrusted import printable

CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
HOW_TO_GET_IT = (
    "install Debian's package dataset-fashion-mnist, or put the four .gz files of "
    "github.com/zalandoresearch/fashion-mnist into a folder and say --data-dir FOLDER"
)


def _locate(folder: Path, stem: str) -> Path | None:
    for name in (f"{stem}.gz", stem):
        if (folder / name).is_file():
            return folder / name
    return None


def find_files(data_dir: str | Path | None = None) -> dict[str, Path]:
    """Return the four files by stem.

    Args:
        data_dir: the one folder to search; Debian's and the cache folder if ``None``.

    Raises:
        ValueError: no folder holds all four; the message lists the folders and how to get them.
    """
    stems = [
        f"{part}-{what}-ubyte"
        for part in ("train", "t10k")
        for what in ("images-idx3", "labels-idx1")
    ]
    folders = [Path(data_dir)] if data_dir is not None else [DEBIAN, cache_dir("fashion-mnist")]
    for folder in folders:
        found = {stem: path for stem in stems if (path := _locate(folder, stem)) is not None}
        if len(found) == len(stems):
            return found
    looked = " and ".join(str(folder) for folder in folders)
    raise ValueError(f"the four Fashion-MNIST files are not in {looked}; {HOW_TO_GET_IT}")


def _load_part(files: dict[str, Path], part: str) -> ImageData:
    images_path = files[f"{part}-images-idx3-ubyte"]
    labels_path = files[f"{part}-labels-idx1-ubyte"]
    try:
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or images.shape[1:] != (28, 28):
            raise ValueError(
                f"{printable(images_path.name)} must hold 28x28 images, has shape "
                f"{tuple(images.shape)}"
            )
        if labels.shape != images.shape[:1]:
            raise ValueError(
                f"{printable(labels_path.name)} must hold {len(images)} labels, has shape "
                f"{tuple(labels.shape)}"
            )
        return ImageData(images.unsqueeze(1), labels.long(), CLASSES)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"Fashion-MNIST in {printable(images_path.parent)} cannot be used: {error}; to get it "
            f"again, {HOW_TO_GET_IT}"
        ) from None


def fashion_mnist(
    seed: int, *, train: int | None, clean: int, data_dir: str | Path | None = None
) -> Splits:
    """Load stratified parts of the official training images, and the official test images.

    Args:
        seed: decides which training image goes where.
        train: number of training images; all that are left if ``None``.
        clean: number of the defender's images.
        data_dir: folder of the four files; see ``find_files``.

    Raises:
        ValueError: missing or damaged files (with the folder and how to get them); more images
            requested than there are.
    """
    files = find_files(data_dir)
    data, test = _load_part(files, "train"), _load_part(files, "t10k")
    parts = draw_parts(data.labels, seed, "fashion-mnist split", train=train, clean=clean)
    return Splits(data.subset(parts[0]), data.subset(parts[1]), test)
