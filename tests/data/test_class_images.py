"""CIFAR-10 as image files: equal to the batches, decoded once."""

import os

import pytest
import torch
from PIL import Image

from d3fast.data import load
from d3fast.data.cifar import CIFAR10_CLASSES


def _write(path, level, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, 2 * level, 3 * level)).save(path)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """Two training images and one test image per class, whose red level is 10 x label + number."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for label, name in enumerate(CIFAR10_CLASSES):
        for number, part in enumerate(("train", "train", "test")):
            _write(tmp_path / "copy" / part / name / f"{number}.png", 8 * label + number)
    return tmp_path / "copy"


def kept(folder):
    return list((folder.parent / "cache" / "d3fast" / "decoded").iterdir())


def test_labels_and_pixels_are_those_of_the_files(copy):
    splits = load("cifar10", 0, clean=5, data_dir=copy)
    assert [len(part) for part in (splits.train, splits.clean, splits.test)] == [15, 5, 10]
    assert splits.test.classes == CIFAR10_CLASSES
    assert splits.test.labels.tolist() == list(range(10))
    for part, numbers in ((splits.train, {0, 1}), (splits.test, {2})):
        red = part.images[:, 0, 5, 5].long()
        assert set((red - 8 * part.labels).tolist()) == numbers
        assert torch.equal(part.images[:, 2, 0, 0].long(), 3 * red)


def test_a_second_run_reads_the_decoded_arrays(copy, monkeypatch):
    first = load("cifar10", 0, clean=5, data_dir=copy)
    monkeypatch.setattr("d3fast.data.class_images.read_images", None)
    again = load("cifar10", 0, clean=5, data_dir=copy)
    assert torch.equal(first.train.images, again.train.images)
    assert torch.equal(first.test.labels, again.test.labels)


def test_a_changed_copy_and_a_damaged_cache_are_decoded_again(copy):
    load("cifar10", 0, clean=5, data_dir=copy)
    (file,) = kept(copy)
    file.write_bytes(b"no archive")
    assert len(load("cifar10", 0, clean=5, data_dir=copy).test) == 10
    _write(copy / "test" / "cat" / "3.png", 99)
    assert len(load("cifar10", 0, clean=5, data_dir=copy).test) == 11
    assert len(kept(copy)) == 2


def test_another_size_and_a_link_out_of_the_copy_are_refused(copy, tmp_path):
    (copy / "train" / "dog" / "1.png").unlink()
    os.symlink(copy / "test" / "dog" / "2.png", copy / "train" / "dog" / "1.png")
    load("cifar10", 0, clean=5, data_dir=copy)
    _write(tmp_path / "out.png", 1)
    os.symlink(tmp_path / "out.png", copy / "train" / "dog" / "9.png")
    with pytest.raises(ValueError, match=r"9\.png is a link that leads out of"):
        load("cifar10", 0, clean=5, data_dir=copy)
    (copy / "train" / "dog" / "9.png").unlink()
    for path in copy.glob("*/*/*.png"):
        _write(path.resolve(), 1, size=(16, 16))
    with pytest.raises(ValueError, match="train must hold images of 32x32 pixels, got 16x16"):
        load("cifar10", 0, clean=5, data_dir=copy)


def test_a_missing_class_is_no_copy(copy):
    for path in (copy / "train" / "frog").iterdir():
        path.unlink()
    (copy / "train" / "frog").rmdir()
    with pytest.raises(ValueError, match=r"CIFAR-10 is not in .*image files in train/CLASS"):
        load("cifar10", 0, clean=5, data_dir=copy)
