"""GTSRB in its official layout, made here."""

import pytest
import torch
from PIL import Image

from d3fast.data import load
from d3fast.data.traffic_signs import CLASSES, gtsrb

HEAD = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"


def _ppm(path, shade, width, height):
    """A grey square of known shade inside a black border of 5 pixels."""
    image = Image.new("RGB", (width, height))
    image.paste((shade, shade, shade), (5, 5, width - 5, height - 5))
    image.save(path)
    return f"{path.name};{width};{height};5;5;{width - 5};{height - 5};"


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Two training images per class, whose shade is 100 + class, and 43 test images."""
    root = tmp_path_factory.mktemp("signs") / "GTSRB"
    test = root / "Final_Test" / "Images"
    test.mkdir(parents=True)
    rows = HEAD
    for label in range(43):
        folder = root / "Final_Training" / "Images" / f"{label:05d}"
        folder.mkdir(parents=True)
        lines = HEAD
        for frame in range(2):
            size = 20 + label + frame
            lines += _ppm(folder / f"00000_{frame:05d}.ppm", 100 + label, size, size + 1)
            lines += f"{label}\n"
        (folder / f"GT-{label:05d}.csv").write_text(lines)
        rows += _ppm(test / f"{label:05d}.ppm", 150 + label, 30, 31) + f"{label}\n"
    (test / "GT-final_test.csv").write_text(rows)
    return root


def test_images_of_all_sizes_come_as_32x32_with_their_labels(official):
    splits = load("gtsrb", 0, clean=43, data_dir=official.parent)
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [43, 43, 43]
    assert splits.train.shape == (3, 32, 32)
    for part, shade in ((splits.train, 100), (splits.clean, 100), (splits.test, 150)):
        assert torch.equal(part.images[:, 0, 16, 16].long(), shade + part.labels)
        assert not part.images[:, :, 0, 0].any()
    assert splits.clean.labels.bincount().tolist() == [1] * 43
    assert splits.test.labels.tolist() == list(range(43))
    assert len(set(CLASSES)) == 43


def test_the_border_can_be_cut_off_and_the_size_chosen(official):
    test = gtsrb(0, train=1, clean=1, data_dir=official, size=16, crop=True).test
    assert test.shape == (3, 16, 16)
    assert torch.equal(test.images[:, 0].flatten(1).amin(1).long(), 150 + test.labels)


@pytest.fixture
def copy(official, tmp_path):
    import shutil

    return shutil.copytree(official, tmp_path / "GTSRB")


def test_the_test_labels_are_found_beside_the_folders_too(copy):
    table = copy / "Final_Test" / "Images" / "GT-final_test.csv"
    table.rename(copy.parent / table.name)
    assert len(load("gtsrb", 0, train=1, clean=1, data_dir=copy).test) == 43
    (copy.parent / table.name).unlink()
    with pytest.raises(ValueError, match=r"GT-final_test\.csv is not in .* GTSRB_Final_Test_GT"):
        load("gtsrb", 0, train=1, clean=1, data_dir=copy)


@pytest.mark.parametrize(
    ("line", "error_text"),
    [
        ("a.ppm;1;2;3", "must hold a name and seven numbers per line, line 2 is 'a.ppm;1;2;3'"),
        ("a.ppm;9;9;0;0;x;9;7", "must hold a name and seven numbers per line"),
        ("a.ppm;9;9;0;0;9;9;8", "ClassId must be 7, line 2 has 8"),
        ("../00008/00000_00000.ppm;9;9;0;0;9;9;7", "not a plain name"),
        ("gone.ppm;9;9;0;0;9;9;7", r"gone\.ppm is missing"),
        ("", "lists no images"),
    ],
)
def test_a_bad_table_is_named_with_the_line(copy, line, error_text):
    table = copy / "Final_Training" / "Images" / "00007" / "GT-00007.csv"
    table.write_text(HEAD + line + "\n")
    with pytest.raises(ValueError, match=error_text):
        load("gtsrb", 0, clean=1, data_dir=copy)


def test_a_missing_class_and_a_box_outside_the_image_are_refused(copy):
    folder = copy / "Final_Training" / "Images" / "00040"
    (folder / "GT-00040.csv").write_text(HEAD + "00000_00000.ppm;9;9;0;0;999;9;40\n")
    with pytest.raises(ValueError, match=r"00000_00000\.ppm .* is not inside"):
        gtsrb(0, train=None, clean=1, data_dir=copy, crop=True)
    folder.rename(copy / "moved")
    with pytest.raises(ValueError, match="00040 is missing or not a folder"):
        load("gtsrb", 0, clean=1, data_dir=copy)
