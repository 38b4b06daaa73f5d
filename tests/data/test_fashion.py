"""Fashion-MNIST: where its files are found, and what is refused. The files are made here."""

import gzip
import struct

import pytest
import torch

from d3fast.data import fashion
from d3fast.data import fashion_mnist as entry
from d3fast.data.fashion import CLASSES, DEBIAN, find_files
from d3fast.data.locations import cache_dir

STEMS = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def _idx(tensor):
    shape = tensor.shape
    return struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape) + bytes(
        tensor.to(torch.uint8).flatten().tolist()
    )


def _images(count, first=0):
    """28x28 images, the first pixel of which says which one it is."""
    images = torch.zeros(count, 28, 28, dtype=torch.long)
    images[:, 0, 0] = torch.arange(first, first + count)
    return images


def _write(folder, zipped=True, **changes):
    """40 training and 20 test images, classes in turn; ``changes`` replaces tensors by stem."""
    tensors = dict(
        zip(
            STEMS,
            (_images(40), torch.arange(40) % 10, _images(20, first=100), torch.arange(20) % 10),
            strict=True,
        )
    )
    tensors.update({stem.replace("_", "-"): tensor for stem, tensor in changes.items()})
    folder.mkdir(parents=True, exist_ok=True)
    for stem, tensor in tensors.items():
        content = _idx(tensor)
        name = f"{stem}.gz" if zipped else stem
        (folder / name).write_bytes(gzip.compress(content) if zipped else content)
    return folder


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No Debian package and an empty cache folder, which is returned."""
    monkeypatch.setattr(fashion, "DEBIAN", tmp_path / "debian")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "d3fast" / "fashion-mnist"


@pytest.mark.parametrize("zipped", [True, False], ids=["gzip", "plain"])
def test_the_files_are_read_from_the_folder_given(tmp_path, nowhere, zipped):
    folder = _write(tmp_path / "mine", zipped)
    splits = entry(0, train=None, clean=10, data_dir=folder)
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [30, 10, 20]
    assert splits.train.shape == (1, 28, 28)
    assert splits.test.classes == CLASSES


def test_the_official_test_images_are_the_test_set_in_their_order(tmp_path):
    test = entry(0, train=None, clean=10, data_dir=_write(tmp_path)).test
    assert test.images[:, 0, 0, 0].tolist() == list(range(100, 120))
    assert test.labels.tolist() == [n % 10 for n in range(20)]


def test_the_folder_may_be_text(tmp_path):
    assert find_files(str(_write(tmp_path))) == find_files(tmp_path)


def test_the_cache_folder_is_searched_without_data_dir(nowhere):
    _write(nowhere)
    assert cache_dir("fashion-mnist") == nowhere
    assert {path.parent for path in find_files().values()} == {nowhere}
    assert len(entry(0, train=None, clean=10).test) == 20


def test_debians_folder_comes_before_the_cache(tmp_path, nowhere):
    _write(nowhere)
    _write(tmp_path / "debian")
    assert {path.parent for path in find_files().values()} == {tmp_path / "debian"}


def test_a_folder_given_is_the_only_one_searched(tmp_path, nowhere):
    _write(nowhere)
    with pytest.raises(ValueError, match=r"not in .*elsewhere; ") as caught:
        find_files(tmp_path / "elsewhere")
    assert str(nowhere) not in str(caught.value)


def test_missing_files_are_reported_with_where_it_looked_and_how_to_get_them(tmp_path, nowhere):
    with pytest.raises(ValueError, match="four Fashion-MNIST files are not in") as caught:
        entry(0, train=None, clean=10)
    message = str(caught.value)
    assert str(tmp_path / "debian") in message
    assert str(nowhere) in message
    assert "dataset-fashion-mnist" in message
    assert "--data-dir FOLDER" in message


def test_three_of_the_four_files_are_not_enough(tmp_path):
    _write(tmp_path)
    (tmp_path / f"{STEMS[3]}.gz").unlink()
    with pytest.raises(ValueError, match="four Fashion-MNIST files are not in"):
        find_files(tmp_path)


@pytest.mark.parametrize(
    ("changes", "error_text"),
    [
        (
            {"train_images_idx3_ubyte": torch.zeros(40, 28, 27)},
            r"28x28 images, has .*\(40, 28, 27\)",
        ),
        ({"t10k_images_idx3_ubyte": torch.zeros(20, 784)}, r"28x28 images, has shape \(20, 784\)"),
        ({"train_labels_idx1_ubyte": torch.zeros(39)}, r"must hold 40 labels, has shape \(39,\)"),
        ({"t10k_labels_idx1_ubyte": torch.zeros(20, 1)}, r"20 labels, has shape \(20, 1\)"),
        ({"train_labels_idx1_ubyte": torch.full((40,), 10)}, r"labels must be in 0\.\.9, got 10"),
    ],
)
def test_files_that_disagree_are_refused_with_how_to_get_good_ones(tmp_path, changes, error_text):
    folder = _write(tmp_path, **changes)
    with pytest.raises(ValueError, match=error_text) as caught:
        entry(0, train=None, clean=10, data_dir=folder)
    assert str(folder) in str(caught.value)
    assert "dataset-fashion-mnist" in str(caught.value)


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_the_real_files_hold_what_the_authors_published():
    splits = entry(0, train=None, clean=3000, data_dir=DEBIAN)
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [57000, 3000, 10000]
    assert splits.test.labels.bincount().tolist() == [1000] * 10
    assert splits.clean.labels.bincount().tolist() == [300] * 10
    assert splits.test.labels[:5].tolist() == [9, 2, 1, 1, 6]
    # Mean pixel of the 60,000 training images, as published: 0.2860.
    pixels = sum(p.images.sum(dtype=torch.long) for p in (splits.train, splits.clean))
    assert pixels.item() / (60000 * 784 * 255) == pytest.approx(0.2860, abs=5e-5)
