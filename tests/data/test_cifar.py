"""CIFAR-10 and CIFAR-100 in their real formats, made here."""

import io
import pickle
import tarfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3fast.data import load
from d3fast.data.cifar import CIFAR10_CLASSES, CIFAR100_CLASSES

PER_FILE = 4


def _pixels(first, count=PER_FILE):
    """Images whose every byte is different from its neighbours', their number in the first."""
    pixels = np.arange(count * 3072, dtype=np.int64).reshape(count, 3072) * 7 % 256
    pixels[:, 0] = np.arange(first, first + count)
    return pixels.astype(np.uint8)


def _cifar10_binary():
    files = {}
    for batch, name in enumerate([*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"]):
        labels = np.arange(PER_FILE, dtype=np.uint8)[:, None] + batch
        files[name] = np.hstack([labels, _pixels(batch * PER_FILE)]).tobytes()
    return files


def _cifar10_python():
    files = {}
    for batch, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
        labels = [label + batch for label in range(PER_FILE)]
        data = {"data": _pixels(batch * PER_FILE), "labels": labels, "filenames": ["x.png"]}
        files[name] = pickle.dumps(data, protocol=4)
    return files


def _cifar100_binary():
    def records(first, count):
        fine = np.arange(count, dtype=np.uint8)[:, None] + 90
        return np.hstack([fine * 0 + 5, fine, _pixels(first, count)]).tobytes()

    return {"train.bin": records(0, 8), "test.bin": records(100, 3)}


def _cifar100_python():
    def batch(first, count):
        fine = [90 + n for n in range(count)]
        data = {b"data": _pixels(first, count), b"fine_labels": fine, b"coarse_labels": [5] * count}
        return pickle.dumps(data, protocol=3)

    return {"train": batch(0, 8), "test": batch(100, 3), "meta": b""}


LAYOUTS = {
    "cifar10": [
        (_cifar10_binary, "cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
        (_cifar10_python, "cifar-10-batches-py", "cifar-10-python.tar.gz"),
    ],
    "cifar100": [
        (_cifar100_binary, "cifar-100-binary", "cifar-100-binary.tar.gz"),
        (_cifar100_python, "cifar-100-python", "cifar-100-python.tar.gz"),
    ],
}
CASES = [(name, *layout) for name, layouts in LAYOUTS.items() for layout in layouts]


def _write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _archive(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(("name", "make", "folder", "archive"), CASES)
@pytest.mark.parametrize("place", ["files", "folder", "archive", "archive itself"])
def test_every_version_is_read_wherever_it_lies(tmp_path, name, make, folder, archive, place):
    data_dir = tmp_path
    if place == "files":
        _write(tmp_path, make())
    elif place == "folder":
        _write(tmp_path / folder, make())
    else:
        path = tmp_path / (archive if place == "archive" else "renamed")
        _archive(path, folder, make())
        data_dir = tmp_path if place == "archive" else path
    splits = load(name, 0, clean=3, data_dir=data_dir)
    images = 20 if name == "cifar10" else 8
    assert [len(p) for p in (splits.train, splits.clean)] == [images - 3, 3]
    assert splits.test.classes == (CIFAR10_CLASSES if name == "cifar10" else CIFAR100_CLASSES)
    first = 20 if name == "cifar10" else 100
    assert torch.equal(
        splits.test.images.flatten(1), torch.from_numpy(_pixels(first, len(splits.test)))
    )
    assert splits.test.labels.tolist() == ([5, 6, 7, 8] if name == "cifar10" else [90, 91, 92])
    for part in (splits.train, splits.clean):
        assert part.shape == (3, 32, 32)
        numbers = part.images[:, 0, 0, 0].tolist()
        wanted = [n // 4 + n % 4 if name == "cifar10" else 90 + n for n in numbers]
        assert part.labels.tolist() == wanted


def test_a_record_is_red_green_and_blue_row_by_row(tmp_path):
    files = _cifar10_binary()
    red_top = bytes([1]) + bytes([255] * 32 + [0] * 3040)
    files["test_batch.bin"] = red_top
    _write(tmp_path, files)
    image = load("cifar10", 0, clean=1, data_dir=tmp_path).test.images[0]
    assert (image[0, 0] == 255).all()
    assert image.sum(dtype=torch.long) == 32 * 255


def test_the_class_names_are_complete():
    assert len(CIFAR10_CLASSES) == 10
    assert len(set(CIFAR100_CLASSES)) == 100
    assert sorted(CIFAR100_CLASSES) == list(CIFAR100_CLASSES)


def _too_few(files):
    files["data_batch_3.bin"] = files["data_batch_3.bin"][:3073]


def _cut_off(files):
    files["data_batch_2.bin"] = files["data_batch_2.bin"][:-1]


def _empty(files):
    files["test_batch.bin"] = b""


def _label_10(files):
    files["data_batch_5.bin"] = b"\x0a" + files["data_batch_5.bin"][1:]


@pytest.mark.parametrize(
    ("damage", "error_text"),
    [
        (_too_few, r"data_batch_3\.bin cannot be used: it must hold 4 images, has 1"),
        (_cut_off, r"data_batch_2\.bin cannot be used: .* whole records of 3073 bytes"),
        (_empty, r"test_batch\.bin cannot be used: .* has 0 bytes"),
        (_label_10, r"data_batch_5\.bin cannot be used: its labels must be in 0\.\.9, got 10"),
    ],
)
def test_damaged_binary_files_are_named(tmp_path, damage, error_text):
    files = _cifar10_binary()
    damage(files)
    _write(tmp_path, files)
    with pytest.raises(ValueError, match=error_text) as caught:
        load("cifar10", 0, clean=1, data_dir=tmp_path)
    assert "cifar-10-binary.tar.gz" in str(caught.value)


@pytest.mark.parametrize(
    ("batch", "error_text"),
    [
        ({"labels": [0]}, r"it holds no data of \(N, 3072\) bytes"),
        ({"data": _pixels(0, 2), "labels": [0]}, "it must hold 2 labels"),
        ({"data": _pixels(0, 1), "labels": [-1]}, "its labels are not class indices"),
        ({"data": _pixels(0, 1), "labels": [10]}, r"its labels must be in 0\.\.9, got 10"),
        ({"data": _pixels(0, 1), "labels": print}, "it holds a function or an object"),
        ([], "it is not a dictionary"),
    ],
)
def test_damaged_python_files_are_named(tmp_path, batch, error_text):
    _write(tmp_path, {**_cifar10_python(), "test_batch": pickle.dumps(batch, protocol=4)})
    with pytest.raises(ValueError, match=f"test_batch cannot be used: {error_text}"):
        load("cifar10", 0, clean=1, data_dir=tmp_path)


def test_a_missing_batch_and_a_link_out_of_the_folder_are_refused(tmp_path):
    files = _cifar10_binary()
    _write(tmp_path / "data", files)
    path = tmp_path / "data" / "data_batch_4.bin"
    path.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="CIFAR-10 is not in"):
        load("cifar10", 0, clean=1, data_dir=tmp_path / "data")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=r"data_batch_4\.bin is a link that leads out of"):
        load("cifar10", 0, clean=1, data_dir=tmp_path / "data")


@pytest.fixture(scope="module")
def suspect(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cifar")
    _write(folder, _cifar100_python())
    return folder


@settings(max_examples=100)
@given(position=st.integers(0, 30_000), byte=st.integers(0, 255), cut=st.booleans())
def test_any_damage_gives_images_or_one_kind_of_error(suspect, position, byte, cut):
    content = bytearray(_cifar100_python()["train"])
    # Most bytes are pixels: look at what is around them more often.
    position = position % 400 - 200 if position % 2 else position % len(content)
    content[position] = byte
    (suspect / "train").write_bytes(content[: position % len(content)] if cut else content)
    try:
        splits = load("cifar100", 0, clean=2, data_dir=suspect)
    except ValueError:
        return
    assert len(splits.train) == 6
