"""A user's own folders of images."""

import pytest
import torch
from PIL import Image

from d3fast.data import load
from d3fast.data.folders import flat_images


def _fill(folder, shades, size=(5, 4), suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for shade in shades:
        Image.new("RGB", size, (shade, 0, 0)).save(folder / f"{shade:03d}.{suffix}")


@pytest.fixture
def mine(tmp_path):
    """Ten cats of shades 0..9 and ten dogs of shades 100..109."""
    root = tmp_path / "mine"
    _fill(root / "cat", range(10))
    _fill(root / "dog", range(100, 110), suffix="BMP")
    return root


def _load(root, **options):
    return load("folder", 0, clean=4, data_dir=root, **options)


def test_without_a_test_folder_one_image_in_five_is_for_testing(mine):
    splits = _load(mine)
    parts = (splits.train, splits.clean, splits.test)
    assert [len(p) for p in parts] == [12, 4, 4]
    shades = [p.images[:, 0, 0, 0] for p in parts]
    assert sorted(torch.cat(shades).tolist()) == [*range(10), *range(100, 110)]
    for part, shade in zip(parts, shades, strict=True):
        assert torch.equal(shade.long() // 100, part.labels)
        assert part.labels.bincount().tolist() == [len(part) // 2] * 2
        assert part.classes == ("cat", "dog")
        assert part.shape == (3, 4, 5)


@pytest.mark.parametrize("test", ["test", "val"])
def test_a_test_folder_is_used_as_it_is_and_may_lack_a_class(mine, test):
    root = mine.parent / "split"
    root.mkdir()
    mine.rename(root / "train")
    _fill(root / test / "dog", [200, 201])
    splits = _load(root)
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [16, 4, 2]
    assert splits.test.images[:, 0, 0, 0].tolist() == [200, 201]
    assert splits.test.labels.tolist() == [1, 1]
    _fill(root / test / "bird", [1])
    with pytest.raises(ValueError, match="bird is a class without training images"):
        _load(root)


def test_a_class_may_be_called_train(mine):
    _fill(mine / "train", [210, 211, 212])
    assert _load(mine).train.classes == ("cat", "dog", "train")


def test_hidden_files_and_what_file_managers_leave_behind_are_passed_over(mine):
    for name in (".DS_Store", "Thumbs.db", "cat/.hidden.png", "cat/desktop.ini", "README.txt"):
        (mine / name).write_text("x")
    (mine / ".git").mkdir()
    assert len(_load(mine).train) == 12


def test_images_of_mixed_sizes_need_a_size(mine):
    _fill(mine / "cat", [50], size=(9, 9))
    with pytest.raises(ValueError, match=r"pixels, but .*: give size to resize them all"):
        _load(mine)
    assert _load(mine, size=8).train.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("name", "error_text"),
    [
        ("cat/notes.txt", r"notes\.txt is not an image: a class folder may hold images only"),
        ("stray.png", r"stray\.png is not in a class folder"),
    ],
)
def test_files_that_do_not_belong_are_named(mine, name, error_text):
    (mine / name).write_text("x")
    with pytest.raises(ValueError, match=error_text):
        _load(mine)


def test_folders_without_images_are_named(mine):
    (mine / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no images"):
        _load(mine)
    (mine / "empty" / "deeper").mkdir()
    with pytest.raises(ValueError, match="deeper is a folder: a class folder may hold images only"):
        _load(mine)
    with pytest.raises(ValueError, match="deeper holds no class folders"):
        _load(mine / "empty" / "deeper")
    with pytest.raises(ValueError, match="nowhere is missing or not a folder"):
        _load(mine / "nowhere")


@pytest.fixture
def flat(tmp_path):
    """Write images of three classes, named by ``names``, into a folder without folders."""

    def write(names):
        for name in names:
            Image.new("L", (5, 4)).save(tmp_path / f"{name}.png")
        return tmp_path

    return write


def test_images_whose_names_hold_numbers_of_classes_are_labelled(flat):
    folder = flat([f"class_{label}_example_{k}" for label in (0, 1, 2) for k in (0, 10)])
    records = flat_images(folder)
    assert records.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert records.classes == ("0", "1", "2")
    assert "numbers of classes in the names" in records.notes[0]
    (folder / "other.png").write_bytes((folder / "class_0_example_0.png").read_bytes())
    assert flat_images(folder).labels is None


def test_numbers_of_classes_may_lie_beside_the_images(flat):
    folder = flat(["a", "b"])
    assert flat_images(folder).labels is None
    for name, label in (("a", "1"), ("b", " 0\n")):
        (folder / f"{name}.json").write_text(label)
    assert flat_images(folder).labels.tolist() == [1, 0]
    for content in ('{"label": 0}', "-1", "1.5", "0" * 100):
        (folder / "b.json").write_text(content)
        assert flat_images(folder).labels is None


def test_a_number_that_no_image_has_is_refused(flat):
    folder = flat(["class_0_example_0", "class_2_example_0"])
    with pytest.raises(ValueError, match="holds no image of class 1"):
        flat_images(folder)
