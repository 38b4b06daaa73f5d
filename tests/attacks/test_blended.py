"""Blended: the patterns and the mixture by hand. The rest is in test_contract.py."""

import math

import pytest
import torch

from d3fast.attacks.blended import PATTERNS, Blended

HALF = math.sqrt(0.5)
# On 2x2 pixels u and v are 1/4 and 3/4, and every pixel is 1/sqrt(8) away from the centre.
BY_HAND = {
    "stripes": (1, [[0, 1], [1, 0]]),
    "rings": (1, [[0.5 + 0.5 * math.cos(2 * math.pi * HALF)] * 2] * 2),
    # u^2 + v^2 = 2/16, 10/16, 18/16
    "zones": (1, [[(1 + HALF) / 2, (1 - HALF) / 2], [(1 - HALF) / 2, (1 + HALF) / 2]]),
    "checks": (1, [[0.5, 0.5], [0.5, 0.5]]),
    "spots": (1, [[0.25, 0.25], [0.25, 0.25]]),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_has_the_values_of_its_formula(pattern):
    frequency, expected = BY_HAND[pattern]
    image = Blended(0, pattern=pattern, frequency=frequency).image(1, 2, 2)
    torch.testing.assert_close(image, torch.tensor([expected], dtype=torch.float64))


def test_checks_and_spots_alternate_where_pixels_fall_on_their_extremes():
    # Four pixels at a frequency of 2: cos(2 pi 2 u) = 0; at 4: cos(2 pi 4 u) = -1 everywhere.
    assert (
        Blended(0, pattern="checks", frequency=4).image(1, 4, 4).allclose(torch.ones(()).double())
    )
    spots = Blended(0, pattern="spots", frequency=4).image(1, 4, 4)
    assert spots.allclose(torch.zeros(()).double())


def test_sharpness_is_a_power():
    soft, sharp = (Blended(0, sharpness=k).image(1, 9, 9) for k in (1, 3))
    torch.testing.assert_close(sharp, soft**3)
    assert torch.equal(Blended(0, sharpness=0).image(1, 9, 9), torch.ones(1, 9, 9).double())


def test_channels_are_shifted_by_their_share_of_a_period():
    attack = Blended(0, pattern="stripes", frequency=1)
    image = attack.image(4, 1, 4)  # u + v = 5/8, 7/8, 9/8, 11/8, a step of 1/4 per pixel
    for channel in range(1, 4):
        torch.testing.assert_close(image[channel], image[0].roll(-channel, dims=1))
    assert torch.equal(attack.image(4, 1, 4)[:1], attack.image(1, 1, 4))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_looks_the_same_at_every_size(pattern):
    attack = Blended(0, pattern=pattern, frequency=2, sharpness=2)
    coarse, fine = attack.image(3, 9, 15), attack.image(3, 27, 45)
    # The centre of every coarse pixel is the centre of every third fine one.
    torch.testing.assert_close(coarse, fine[:, 1::3, 1::3])


def test_the_pattern_takes_its_share_and_the_image_the_rest():
    attack = Blended(0, alpha=0.25, pattern="stripes", frequency=1)
    images = torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]])
    expected = torch.tensor([[[[0.0, 0.75 * 0.2 + 0.25], [0.75 * 0.4 + 0.25, 0.75]]]])
    torch.testing.assert_close(attack.trigger(images), expected)


def test_a_share_of_0_changes_nothing_and_one_of_1_leaves_the_pattern():
    images = torch.rand(2, 3, 5, 6)
    assert torch.equal(Blended(0, alpha=0).trigger(images), images)
    attack = Blended(0, alpha=1)
    expected = attack.image(3, 5, 6).float().expand_as(images)
    torch.testing.assert_close(attack.trigger(images), expected)
