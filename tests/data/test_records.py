"""Listed samples: their classes, and images of one size."""

import pytest
import torch
from PIL import Image

from d3fast.data.records import FileSource, Records, decode_images, number_labels
from d3fast.io.images import Fit


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1]),
        (["3", "0"], ("0", "1", "2", "3"), [3, 0]),
        (["10", "9"], tuple(map(str, range(11))), [10, 9]),
        (["1", "one"], ("1", "one"), [0, 1]),
        (["01", "1"], ("01", "1"), [0, 1]),  # not two spellings of one number
    ],
)
def test_labels_are_numbered(labels, classes, numbers):
    found, tensor = number_labels(labels)
    assert (found, tensor.tolist()) == (classes, numbers)


@pytest.mark.parametrize("label", ["-1", "65536"])
def test_integers_that_are_no_positions_are_refused(label):
    with pytest.raises(ValueError, match=f"labels must be in 0..65535, got {label}"):
        number_labels(["0", label])


@pytest.fixture
def files(tmp_path):
    def save(*images):
        for number, image in enumerate(images):
            image.save(tmp_path / f"{number}.png")
        return [FileSource(tmp_path / f"{number}.png") for number in range(len(images))]

    return save


GREY, COLOUR, WIDE = Image.new("L", (4, 4), 9), Image.new("RGB", (4, 4)), Image.new("L", (8, 4))


def records(sources, channels):
    return Records(sources, torch.zeros(len(sources)).long(), ("a",), channels)


def test_images_are_converted_and_fitted(files):
    sources = files(COLOUR, GREY, WIDE)
    images = decode_images(records(sources, 3), Fit((2, 2)), 3)
    assert images.shape == (3, 3, 2, 2)
    assert images[1].unique().tolist() == [9]
    assert decode_images(records(sources, 3), Fit((2, 2)), 1).shape == (3, 1, 2, 2)


def test_one_colour_image_among_grey_ones_is_refused(files):
    with pytest.raises(ValueError, match=r"1.png is colour, but .*0.png is grey"):
        decode_images(records(files(GREY, COLOUR), 1), Fit(), 1)


def test_images_of_several_sizes_need_a_size(files):
    with pytest.raises(ValueError, match=r"1.png has 8x4 pixels, .* give size"):
        decode_images(records(files(GREY, WIDE), 1), Fit(), 1)


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        Records((), None, None, None)


def test_a_class_name_that_controls_a_terminal_is_refused():
    with pytest.raises(ValueError, match="not a name"):
        Records(("text",), torch.tensor([0]), ("a\x1b[2J",), None)
