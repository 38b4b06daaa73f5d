"""SIG: the wave by hand, and poison of the target class. The rest is in test_contract.py."""

import math

import pytest
import torch

from d3fast.attacks.sig import SIG
from d3fast.data import ImageData


def _data(count=100, classes=5, dtype=torch.uint8):
    """Grey images, classes in turn, told apart by pixel 0."""
    images = torch.full((count, 1, 6, 6), 100)
    images[:, 0, 0, 0] = torch.arange(count)
    images = images.to(torch.uint8) if dtype == torch.uint8 else images / 255
    return ImageData(images, torch.arange(count) % classes, tuple("abcdefgh"[:classes]))


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("frequency", "expected"),
    [
        (0, [0.5, 0.5, 0.5, 0.5]),
        (1, [0.5, 0.7, 0.5, 0.3]),
        (3, [0.5, 0.3, 0.5, 0.7]),  # above W/2 = 2: the mirror image of 1
        (0.5, [0.5, 0.5 + 0.2 * math.sqrt(0.5), 0.7, 0.5 + 0.2 * math.sqrt(0.5)]),
    ],
)
def test_every_row_and_channel_carries_the_wave(frequency, expected):
    stamped = SIG(0, delta=0.2, frequency=frequency).trigger(torch.full((2, 3, 2, 4), 0.5))
    torch.testing.assert_close(stamped, torch.tensor(expected).expand(2, 3, 2, 4))


def test_the_recipe_of_the_field_is_40_grey_levels_and_6_periods():
    assert (SIG(0).delta, SIG(0).frequency) == (40 / 255, 6)
    quarter = 2  # sin(2 pi 2 * 6 / 48) = 1
    assert int(SIG(0).trigger(torch.zeros(1, 1, 48, dtype=torch.uint8))[0, 0, quarter]) == 40


def test_poison_carries_the_training_strength_and_the_test_the_full_one():
    data = _data()
    attack = SIG(1, delta=0.2, frequency=1, train_delta=0.1)
    poisoned = attack.poison(data, 0.1, generator=_seeded())
    chosen = poisoned.indices
    faint = SIG(1, delta=0.1, frequency=1).trigger(data.images[chosen])
    assert torch.equal(poisoned.data.images[chosen], faint)
    assert not torch.equal(attack.trigger(data.images[chosen]), faint)


@pytest.mark.parametrize(("ratio", "share", "count"), [(0.2, 0.5, 10), (0.05, 0.5, 5), (1, 0, 0)])
def test_a_share_of_the_class_stays_clean_whatever_the_ratio(ratio, share, count):
    assert len(SIG(2, share=share).poison(_data(), ratio, generator=_seeded()).indices) == count
