"""Image files: what is decoded, and what is refused in one line."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from d3fast.io.images import read_image

RED = (200, 10, 20)


def _save(path, image, **options):
    image.save(path, **options)
    return path


def _colour(width=6, height=4, colour=RED):
    return Image.new("RGB", (width, height), colour)


@pytest.mark.parametrize("suffix", ["png", "bmp", "ppm", "webp", "jpg"])
def test_every_format_gives_the_pixels(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    read = read_image(_save(tmp_path / f"a.{suffix}", _colour(), **options))
    assert (read.shape, read.dtype) == ((3, 4, 6), torch.uint8)
    off = 3 if suffix == "jpg" else 0
    expected = torch.tensor(RED)[:, None, None].expand(3, 4, 6)
    assert ((read.int() - expected).abs() <= off).all()


@pytest.mark.parametrize(
    ("mode", "shape"),
    [("1", (1, 4, 6)), ("L", (1, 4, 6)), ("LA", (1, 4, 6)), ("P", (3, 4, 6)), ("RGBA", (3, 4, 6))],
)
def test_grey_has_one_channel_all_else_three_and_unused_transparency_is_dropped(
    tmp_path, mode, shape
):
    image = _colour(colour=(255, 255, 255)).convert(mode)
    read = read_image(_save(tmp_path / "a.png", image))
    assert read.shape == shape
    assert (read == 255).all()


def test_channels_can_be_asked_for(tmp_path):
    grey = _save(tmp_path / "grey.png", Image.new("L", (2, 2), 7))
    assert read_image(grey, channels=3).tolist() == [[[7, 7], [7, 7]]] * 3
    assert read_image(_save(tmp_path / "c.png", _colour()), channels=1).shape == (1, 4, 6)


def test_a_box_is_taken_first_and_the_size_follows(tmp_path):
    pixels = np.zeros((4, 6), np.uint8)
    pixels[1:3, 2:4] = 90
    path = _save(tmp_path / "a.png", Image.fromarray(pixels))
    assert (read_image(path, box=(2, 1, 4, 3)) == 90).all()
    assert read_image(path, box=(2, 1, 4, 3), size=5).tolist() == [[[90] * 5] * 5]


def test_shrinking_smooths(tmp_path):
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (16, 8)))
    small = read_image(_save(tmp_path / "a.png", stripes), size=4)
    assert (small.int() - 127).abs().max() <= 30


def _encoded(image, kind="PNG"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "error_text"),
    [
        (_encoded(_colour(60, 40), "JPEG")[:-400], "cannot be used: .*[Tt]runcated"),
        (_encoded(Image.new("RGBA", (2, 2), (1, 2, 3, 9))), "it has transparent pixels"),
        (_encoded(Image.new("I;16", (2, 2), 999)), "its mode I;16 is not grey or colour of 8 bits"),
    ],
)
def test_what_is_no_usable_image_is_named_in_one_line(tmp_path, content, error_text):
    path = tmp_path / "suspect.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"suspect\.png .*{error_text}") as e:
        read_image(path)
    assert "\n" not in str(e.value)


def test_a_box_outside_the_image_is_refused(tmp_path):
    path = _save(tmp_path / "a.png", _colour())
    for box in ((0, 0, 7, 4), (-1, 0, 2, 2), (2, 0, 2, 2), (3, 3, 1, 4)):
        with pytest.raises(ValueError, match=r"a\.png .* is not inside its 6x4 pixels"):
            read_image(path, box=box)
