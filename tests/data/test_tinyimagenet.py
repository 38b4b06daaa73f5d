"""Tiny ImageNet in its official layout, made here."""

import pytest
import torch
from PIL import Image

from d3fast.data import load

WNIDS = ("n02124075", "n01443537", "n07734744")


@pytest.fixture
def root(tmp_path):
    """Three classes, four training images each of shade 10 * class + number, two for validation."""
    root = tmp_path / "tiny-imagenet-200"
    for label, wnid in enumerate(WNIDS):
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        (folder.parent / f"{wnid}_boxes.txt").write_text("")
        for n in range(4):
            mode = "L" if n == 3 else "RGB"  # a few of the real ones are grey
            shade = 10 * label + n
            image = Image.new(mode, (64, 64), shade if n == 3 else (shade,) * 3)
            image.save(folder / f"{wnid}_{n}.JPEG", quality=100)
    (root / "val" / "images").mkdir(parents=True)
    for n, shade in enumerate((100, 200)):
        Image.new("RGB", (64, 64), (shade,) * 3).save(root / "val" / "images" / f"val_{n}.JPEG")
    (root / "val" / "val_annotations.txt").write_text(
        f"val_0.JPEG\t{WNIDS[2]}\t0\t0\t9\t9\nval_1.JPEG\t{WNIDS[0]}\t0\t0\t9\t9\n"
    )
    (root / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    (root / "words.txt").write_text(
        "n01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\n"
    )
    return root


def test_the_classes_come_in_the_order_of_wnids_with_their_first_names(root):
    splits = load("tiny-imagenet", 0, clean=3, data_dir=root.parent)
    assert splits.train.classes == ("Egyptian cat", "goldfish", "n07734744")
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [9, 3, 2]
    for part in (splits.train, splits.clean):
        assert part.shape == (3, 64, 64)
        assert torch.equal(part.images[:, 1, 5, 5].long() // 10, part.labels)


def test_the_official_validation_images_are_the_test_set(root):
    test = load("tiny-imagenet", 0, clean=3, data_dir=root, size=32).test
    assert test.shape == (3, 32, 32)
    assert test.labels.tolist() == [2, 0]
    assert test.images[:, 0, 0, 0].tolist() == [100, 200]


@pytest.mark.parametrize(
    ("name", "content", "error_text"),
    [
        ("wnids.txt", "../../etc\n", r"wnids\.txt must hold lines like n01443537, got '\.\./"),
        ("wnids.txt", f"{WNIDS[0]}\n{WNIDS[0]}\n", r"wnids\.txt must hold 1 to 1000 different"),
        ("wnids.txt", "n99999999\n", "n99999999 is missing or not a folder"),
        ("val/val_annotations.txt", "val_0.JPEG\n", "line 1 is 'val_0.JPEG'"),
        ("val/val_annotations.txt", "val_0.JPEG\tn99999999\n", "a class of wnids"),
        ("val/val_annotations.txt", f"../a\t{WNIDS[0]}\n", "not a plain name"),
        ("val/val_annotations.txt", f"b.JPEG\t{WNIDS[0]}\n", r"b\.JPEG is missing"),
        ("val/val_annotations.txt", "", "lists no images"),
        ("val/images/val_0.JPEG", "no image", r"val_0\.JPEG is not an image of a known format"),
    ],
)
def test_bad_files_are_named(root, name, content, error_text):
    (root / name).write_text(content)
    with pytest.raises(ValueError, match=error_text):
        load("tiny-imagenet", 0, clean=1, data_dir=root)


def test_a_class_without_images_is_refused(root):
    for path in (root / "train" / WNIDS[1] / "images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=f"{WNIDS[1]}/images holds no images"):
        load("tiny-imagenet", 0, clean=1, data_dir=root)
