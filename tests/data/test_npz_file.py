"""A user's own arrays, good and hostile."""

import zipfile

import numpy as np
import pytest
import torch

from d3fast.data import load

IMAGES = np.arange(20 * 4 * 5 * 3, dtype=np.int64).reshape(20, 4, 5, 3).astype(np.uint8)
IMAGES[:, 0, 0, 0] = np.arange(20)
LABELS = np.arange(20) % 2


def _load(path, **options):
    return load("npz", 0, **{"clean": 4, "data_dir": path, **options})


def _save(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


@pytest.mark.parametrize("compressed", [False, True])
def test_one_image_in_five_is_for_testing_where_the_file_has_no_test_part(path, compressed):
    splits = _load(_save(path, compressed, images=IMAGES, labels=LABELS))
    parts = (splits.train, splits.clean, splits.test)
    assert [len(p) for p in parts] == [12, 4, 4]
    numbers = [p.images[:, 0, 0, 0].long() for p in parts]
    assert sorted(torch.cat(numbers).tolist()) == list(range(20))
    for part, which in zip(parts, numbers, strict=True):
        assert torch.equal(part.labels, which % 2)
        assert part.classes == ("0", "1")
        assert torch.equal(part.images, torch.from_numpy(IMAGES)[which].permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
    ],
)
def test_the_keys_of_keras_and_medmnist_are_known(path, keys):
    values = (IMAGES, LABELS[:, None], IMAGES[:3], np.array([1, 1, 0], np.uint8)[:, None])
    splits = _load(_save(path, **dict(zip(keys, values, strict=True)), val_images=IMAGES))
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [16, 4, 3]
    assert splits.test.labels.tolist() == [1, 1, 0]
    assert splits.test.images[:, 0, 0, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (IMAGES, (3, 4, 5)),
        (IMAGES.transpose(0, 3, 1, 2), (3, 4, 5)),
        (IMAGES[..., 0], (1, 4, 5)),
        (IMAGES[..., :1], (1, 4, 5)),
        (np.asfortranarray(IMAGES), (3, 4, 5)),
        (IMAGES / 255, (3, 4, 5)),
        ((IMAGES / 255).astype(">f4"), (3, 4, 5)),
    ],
)
def test_every_layout_gives_channels_first(path, images, shape):
    test = _load(_save(path, images=images, labels=LABELS)).test
    assert test.shape == shape
    wanted = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)[:, : shape[0]]
    which = [
        int(n) for n in (test.images[:, 0, 0, 0] * (1 if images.dtype == np.uint8 else 255)).round()
    ]
    scaled = test.images if images.dtype == np.uint8 else (test.images * 255).round().byte()
    assert torch.equal(scaled, wanted[which])
    assert test.images.dtype == (torch.uint8 if images.dtype == np.uint8 else torch.float32)


def test_names_of_classes_may_be_given(path):
    names = np.array(["cat", "dog", "never seen"])
    assert _load(_save(path, images=IMAGES, labels=LABELS, classes=names)).test.classes == (
        "cat",
        "dog",
        "never seen",
    )


@pytest.mark.parametrize(
    ("changes", "error_text"),
    [
        ({"images": IMAGES.astype(int)}, "images in .* must be uint8 or float, its type is int64"),
        ({"images": IMAGES / 254}, r"float images must be in \[0, 1\]"),
        ({"images": np.full((20, 2, 2), np.nan)}, r"float images must be in \[0, 1\]"),
        ({"images": IMAGES[..., :2]}, "has neither 1 nor 3 channels"),
        ({"images": IMAGES[:, :3]}, "could be either"),
        ({"images": IMAGES[0, 0]}, r"shape \(5, 3\) is not"),
        ({"images": IMAGES[:0]}, "it is empty"),
        ({"images": np.array([{}] * 20, dtype=object)}, "its type is object, not numbers or text"),
        ({"labels": LABELS[:19]}, r"labels in .* must be \(20,\) integers, it is \(19,\)"),
        ({"labels": LABELS / 2}, r"must be \(20,\) integers, it is \(20,\) of float64"),
        ({"labels": np.stack([LABELS] * 2, 1)}, r"must be \(20,\) integers, it is \(20, 2\)"),
        ({"labels": LABELS - 1}, r"labels must be in 0\.\.65535, got -1"),
        ({"labels": LABELS + 2**40}, r"labels must be in 0\.\.65535, got 1099511627777"),
        ({"labels": LABELS + 1}, "without gaps: none of the training images has 0"),
        ({"classes": np.array(["one"])}, "classes must be names, one for each of at least 2"),
        ({"classes": np.arange(3)}, "classes must be names"),
    ],
)
def test_arrays_that_are_no_images_or_labels_are_named(path, changes, error_text):
    arrays = {"images": IMAGES, "labels": LABELS, **changes}
    with pytest.raises(ValueError, match=error_text) as caught:
        _load(_save(path, **arrays))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "error_text"),
    [
        ({"x_test": IMAGES[:3, :2]}, r"x_test in .* test images are \(3, 2, 5\) of torch\.uint8"),
        ({"x_test": IMAGES[:3] / 255}, r"test images are \(3, 4, 5\) of torch\.float32"),
        ({"y_test": np.array([0, 1, 2])}, r"y_test in .* labels must be in 0\.\.1, got 2"),
        ({"y_test": np.array([0, 1])}, r"y_test in .* must be \(3,\) integers"),
    ],
)
def test_a_test_part_that_does_not_fit_is_named(path, changes, error_text):
    arrays = {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:3], "y_test": LABELS[:3]}
    with pytest.raises(ValueError, match=error_text):
        _load(_save(path, **{**arrays, **changes}))


def test_other_keys_and_other_files_are_refused(path, tmp_path):
    with pytest.raises(ValueError, match=r"must hold images and labels or .*it holds \['data'\]"):
        _load(_save(path, data=IMAGES))
    path.write_bytes(b"no zip file")
    with pytest.raises(ValueError, match=r"mine\.npz is not a \.npz file"):
        _load(path)
    with pytest.raises(ValueError, match="is missing or not a regular file"):
        _load(tmp_path)


def test_packing_that_numpy_does_not_use_is_refused(path):
    _save(path, images=IMAGES, labels=LABELS)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="compressed in a way that numpy does not use"):
        _load(path)
