"""A small, valid copy of every data set of the registry, in its own format."""

import gzip
import struct
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from d3fast.data.traffic_signs import CLASSES as SIGNS

WNIDS = ("n02124075", "n01443537")
_TABLE = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def _pixels(count: int, length: int, first: int = 0) -> np.ndarray:
    """Rows of bytes, no two alike."""
    return np.random.default_rng(first).integers(0, 256, (count, length), np.uint8)


def _save(path: Path, number: int, side: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = _pixels(1, side * side * 3, number).reshape(side, side, 3)
    Image.fromarray(pixels).save(path, format="PPM")  # the content decides, not the suffix


def _digits(root: Path) -> Path:
    return root


def _fashion(root: Path) -> Path:
    for first, part, count in ((0, "train", 40), (1, "t10k", 20)):
        for name, data, shape in (
            ("images-idx3", _pixels(count, 784, first), (count, 28, 28)),
            ("labels-idx1", np.arange(count, dtype=np.uint8) % 10, (count,)),
        ):
            head = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
            (root / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(head + data.tobytes()))
    return root


def _cifar(root: Path, names: tuple[str, ...], label_bytes: int) -> Path:
    for first, name in enumerate(names):
        labels = np.arange(10, dtype=np.uint8)[:, None].repeat(label_bytes, axis=1)
        records = np.hstack([labels, _pixels(10, 3072, first)])
        (root / name).write_bytes(records.tobytes())
    return root


def _cifar10(root: Path) -> Path:
    return _cifar(root, (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"), 1)


def _cifar100(root: Path) -> Path:
    return _cifar(root, ("train.bin", "test.bin"), 2)


def _gtsrb(root: Path) -> Path:
    def row(path: Path, label: int, number: int) -> str:
        _save(path, number)
        return f"{path.name};32;32;5;5;27;27;{label}\n"

    test = root / "Final_Test" / "Images"
    for label in range(len(SIGNS)):
        folder = root / "Final_Training" / "Images" / f"{label:05d}"
        rows = (row(folder / f"0_{n}.ppm", label, 2 * label + n) for n in range(2))
        table = _TABLE + "".join(rows)
        (folder / f"GT-{label:05d}.csv").write_text(table)
    rows = (row(test / f"{label}.ppm", label, 100 + label) for label in range(len(SIGNS)))
    table = _TABLE + "".join(rows)
    (test / "GT-final_test.csv").write_text(table)
    return root


def _tiny_imagenet(root: Path) -> Path:
    for label, wnid in enumerate(WNIDS):
        for n in range(10):
            _save(root / "train" / wnid / "images" / f"{n}.JPEG", 10 * label + n, 64)
        _save(root / "val" / "images" / f"{label}.JPEG", 100 + label, 64)
    rows = (f"{label}.JPEG\t{wnid}\t0\t0\t9\t9\n" for label, wnid in enumerate(WNIDS))
    (root / "val" / "val_annotations.txt").write_text("".join(rows))
    (root / "wnids.txt").write_text("\n".join(WNIDS))
    return root


def _folder(root: Path) -> Path:
    for number in range(20):
        _save(root / ["cat", "dog"][number % 2] / f"{number}.ppm", number)
    return root


def _npz(root: Path) -> Path:
    images = _pixels(20, 48).reshape(20, 4, 4, 3)
    np.savez(root / "data.npz", images=images, labels=np.arange(20) % 2)
    return root / "data.npz"


# Writes the files into an empty folder and returns the ``data_dir`` to load them with.
SMALL: Mapping[str, Callable[[Path], Path]] = {
    "digits": _digits,
    "fashion-mnist": _fashion,
    "cifar10": _cifar10,
    "cifar100": _cifar100,
    "gtsrb": _gtsrb,
    "tiny-imagenet": _tiny_imagenet,
    "folder": _folder,
    "npz": _npz,
}
