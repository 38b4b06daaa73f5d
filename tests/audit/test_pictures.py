"""Inverted triggers as PNG."""

import base64
import io

import pytest
import torch
from PIL import Image

from d3fast.audit.inversion import Inversion
from d3fast.audit.pictures import picture_of


def decoded(mask, pattern):
    head, _, data = picture_of(Inversion(0, mask, pattern, 1.0, 1.0)).partition(",")
    assert head == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_pattern_shows_where_the_mask_is_and_grey_elsewhere():
    mask = torch.tensor([[[1.0, 0.0], [0.5, 0.0]]])
    picture = decoded(mask, torch.ones(1, 2, 2))
    assert picture.mode == "L"
    assert [picture.getpixel(at) for at in ((0, 0), (1, 0), (0, 1))] == [255, 128, 191]


def test_colour_stays_colour():
    pattern = torch.stack([torch.ones(2, 3), torch.zeros(2, 3), torch.zeros(2, 3)])
    picture = decoded(torch.ones(1, 2, 3), pattern)
    assert (picture.mode, picture.size, picture.getpixel((2, 1))) == ("RGB", (3, 2), (255, 0, 0))


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_other_numbers_of_channels_are_averaged(channels):
    assert decoded(torch.ones(1, 2, 2), torch.ones(channels, 2, 2)).getpixel((0, 0)) == 255
