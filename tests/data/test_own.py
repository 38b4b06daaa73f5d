"""A user's own clean samples: all of them, labelled as the model counts its classes."""

import numpy as np
import pytest
from PIL import Image

from d3fast.data import clean_samples, load, save_samples


@pytest.fixture
def archive(tmp_path):
    """Twelve images, each of one grey: its number; three classes by name."""
    images = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    path = tmp_path / "clean.npz"
    np.savez(path, images=images, labels=np.arange(12) % 3, classes=np.array(["a", "b", "c"]))
    return path


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "pictures"
    for label, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for grey in range(5):
            Image.new("L", (6, 6), 10 * grey + label).save(root / name / f"{grey}.png")
    return root


def test_every_image_of_an_archive_is_there_once(archive):
    data = clean_samples(archive)
    assert sorted(data.images[:, 0, 0, 0].tolist()) == list(range(12))
    assert (data.images[:, 0, 0, 0] % 3).tolist() == data.labels.tolist()


def test_every_image_of_a_folder_is_there_once(pictures):
    data = clean_samples(pictures)
    assert sorted(data.images[:, 0, 0, 0].tolist()) == [0, 1, 10, 11, 20, 21, 30, 31, 40, 41]
    assert (data.images[:, 0, 0, 0] % 10).tolist() == data.labels.tolist()
    assert data.classes == ("cat", "dog")


def test_train_and_test_folders_are_taken_together(pictures):
    root = pictures.parent / "both"
    root.mkdir()
    pictures.rename(root / "train")
    (root / "test" / "dog").mkdir(parents=True)
    Image.new("L", (6, 6), 99).save(root / "test" / "dog" / "last.png")
    data = clean_samples(root)
    assert len(data) == 11
    assert data.labels[data.images[:, 0, 0, 0] == 99].tolist() == [1]


def test_images_of_a_folder_are_stretched(pictures):
    assert clean_samples(pictures, size=3).shape == (1, 3, 3)


def test_a_list_of_classes_sets_their_order_and_number(pictures, tmp_path):
    names = tmp_path / "classes.txt"
    names.write_text("dog\nfrog\ncat\n")
    plain, listed = clean_samples(pictures), clean_samples(pictures, classes=names)
    assert listed.classes == ("dog", "frog", "cat")
    assert listed.labels.tolist() == [{0: 2, 1: 0}[label] for label in plain.labels.tolist()]


@pytest.mark.parametrize(
    ("lines", "error_text"),
    [("cat\nfrog\n", "lacks 'dog'"), ("cat\ndog\ncat\n", "twice"), ("", "lacks 'cat'")],
)
def test_a_list_that_does_not_fit_is_refused(pictures, tmp_path, lines, error_text):
    names = tmp_path / "classes.txt"
    names.write_text(lines)
    with pytest.raises(ValueError, match=error_text):
        clean_samples(pictures, classes=names)


def test_nothing_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="nowhere is missing"):
        clean_samples(tmp_path / "nowhere")


def test_a_size_for_an_archive_is_refused(archive):
    with pytest.raises(ValueError, match="size is for folders"):
        clean_samples(archive, size=3)


def test_samples_that_were_written_are_read_again(tmp_path):
    data = load("digits", 0, clean=100).clean
    save_samples(data, tmp_path / "clean.npz")
    back = clean_samples(tmp_path / "clean.npz")
    assert back.classes == data.classes
    sets = [sorted(zip(d.images.tolist(), d.labels.tolist(), strict=True)) for d in (data, back)]
    assert sets[0] == sets[1]
