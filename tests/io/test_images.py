"""Image files: what is decoded, and what is refused in one line."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from d3fast.io.images import Fit, fit_images, read_image

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
    assert read_image(path, box=(2, 1, 4, 3), fit=Fit((5, 5))).tolist() == [[[90] * 5] * 5]


def test_shrinking_smooths(tmp_path):
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (16, 8)))
    small = read_image(_save(tmp_path / "a.png", stripes), fit=Fit((4, 4)))
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


def photograph(width=53, height=37, seed=0):
    """A smooth colour image with noise."""
    draws = np.random.default_rng(seed)
    ramp = np.linspace(0, 200, height * width * 3).reshape(height, width, 3)
    return Image.fromarray((ramp + draws.integers(0, 55, ramp.shape)).astype(np.uint8))


def reference(image, size, shorter):
    """Resize the shorter edge and crop the centre, as torchvision's Resize and CenterCrop do."""
    width, height = image.size
    longer = int(shorter * max(width, height) / min(width, height))
    scaled = (shorter, longer) if width <= height else (longer, shorter)
    image = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (round((have - size) / 2) for have in image.size)
    return image.crop((left, top, left + size, top + size))


@pytest.mark.parametrize(("size", "shorter"), [(16, 16), (16, 19), (24, 32)])
@pytest.mark.parametrize("shape", [(53, 37), (37, 53), (40, 40)])
def test_the_shorter_edge_is_resized_and_the_centre_cropped(tmp_path, shape, size, shorter):
    image = photograph(*shape)
    read = read_image(_save(tmp_path / "a.png", image), fit=Fit((size, size), shorter))
    expected = np.array(reference(image, size, shorter)).transpose(2, 0, 1)
    assert np.array_equal(read.numpy(), expected)


def test_a_crop_beyond_the_image_is_filled_with_zeros(tmp_path):
    path = _save(tmp_path / "a.png", Image.new("L", (4, 2), 9))
    image = read_image(path, fit=Fit((4, 5), shorter=2))[0]
    assert image.tolist() == [[0] * 5, [9] * 4 + [0], [9] * 4 + [0], [0] * 5]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_fit_is_that_of_transformers(tmp_path, interpolation):
    transformers = pytest.importorskip("transformers", reason="needs the extra transformers")
    image = photograph()
    processor = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 20},
        crop_size={"height": 16, "width": 16},
        resample=Image.Resampling[interpolation.upper()],
        do_rescale=False,
        do_normalize=False,
    )
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    fit = Fit((16, 16), shorter=20, interpolation=interpolation)
    read = read_image(_save(tmp_path / "a.png", image), fit=fit)
    assert np.array_equal(read.numpy(), expected)


def test_arrays_are_fitted_like_files(tmp_path):
    image, fit = photograph(), Fit((16, 16), shorter=20)
    read = read_image(_save(tmp_path / "a.png", image), fit=fit)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    assert torch.equal(fit_images(pixels, fit, 3)[0], read)
    floats = fit_images(pixels / 255, fit, 3)[0]
    assert (255 * floats - read).abs().max() < 1
    assert fit_images(pixels, fit, 1).shape == (1, 1, 16, 16)
    assert torch.equal(fit_images(pixels[:, :1], Fit(), 3), pixels[:, :1].expand(-1, 3, -1, -1))


def test_grey_arrays_are_made_as_pillow_makes_them():
    image = photograph()
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    grey = fit_images(pixels, Fit(), 1)[0, 0].int()
    assert (grey - torch.from_numpy(np.array(image.convert("L"))).int()).abs().max() <= 1


@pytest.mark.parametrize("given", [{"interpolation": "magic"}, {"size": (0, 1)}, {"shorter": 0}])
def test_a_fit_that_makes_no_image_is_refused(given):
    with pytest.raises(ValueError, match="must be"):
        Fit(**given)
