"""Sets of image files: one shape, one order, bounded memory."""

import pytest
from PIL import Image

from d3fast.data.image_files import ImageFile, read_images

RED = (200, 10, 20)


def _save(path, image, **options):
    image.save(path, **options)
    return path


def _colour(width=6, height=4, colour=RED):
    return Image.new("RGB", (width, height), colour)


def test_images_come_in_the_order_asked_for(tmp_path):
    pictures = [
        ImageFile(_save(tmp_path / f"{n}.png", Image.new("L", (2, 3), n)), 0) for n in (3, 1, 2)
    ]
    images = read_images(pictures)
    assert images.shape == (3, 1, 3, 2)
    assert images[:, 0, 0, 0].tolist() == [3, 1, 2]


def test_images_that_differ_are_named_with_what_to_do(tmp_path):
    first = ImageFile(_save(tmp_path / "first.png", _colour()), 0)
    wide = ImageFile(_save(tmp_path / "wide.png", _colour(width=9)), 0)
    grey = ImageFile(_save(tmp_path / "grey.png", Image.new("L", (6, 4))), 0)
    with pytest.raises(ValueError, match=r"wide\.png has 9x4 pixels, but .*first\.png has 6x4"):
        read_images([first, wide])
    assert read_images([first, wide], size=3).shape == (2, 3, 3, 3)
    with pytest.raises(ValueError, match=r"grey\.png is grey, but .*first\.png is colour"):
        read_images([first, grey])
    assert read_images([first, grey], channels=3).shape == (2, 3, 4, 6)


def test_more_images_than_fit_in_memory_are_refused_before_any_is_kept(tmp_path):
    picture = ImageFile(_save(tmp_path / "a.png", _colour(100, 100)), 0)
    with pytest.raises(ValueError, match=r"600000 samples .* more than 4294967296"):
        read_images([picture] * 600_000)
