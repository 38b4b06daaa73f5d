"""SSBA: the message is read on unseen images, the residual is bounded and differs by image."""

import pytest
import torch

from d3fast.attacks.ssba import SSBA, UNet
from d3fast.data import ImageData, as_float


def _data(count=64, channels=1, side=8, seed=0, dtype=torch.uint8):
    """Bright squares on grey, a little noise."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(90, 110, (count, channels, side, side), generator=rng)
    corners = torch.randint(side - 3, (count, 2), generator=rng)
    for image, (row, column) in zip(images, corners.tolist(), strict=True):
        image[:, row : row + 4, column : column + 4] += 60
    images = images.to(torch.uint8)
    images = images if dtype == torch.uint8 else as_float(images)
    return ImageData(images, torch.arange(count) % 4, tuple("abcd"))


def _learned(target=1, seed=0, data=None, **options):
    attack = SSBA(target, **{"steps": 3, "batch_size": 16, **options})
    attack.learn(data or _data(), seed=seed, progress=False)
    return attack


ENOUGH = {"steps": 100, "strength": 0.2, "image_weight": 5.0, "lr": 0.01}


@pytest.fixture(scope="module")
def trained():
    """Enough steps to read by."""
    return _learned(data=_data(256), **ENOUGH)


def test_the_decoder_reads_the_bit_on_images_it_was_not_trained_on(trained):
    held_out = _data(200, seed=1).images
    stamped = trained.trigger(held_out)  # in bytes, as they are stored
    assert trained.read(stamped).float().mean() > 0.9
    assert trained.read(held_out).float().mean() < 0.1


def test_the_residual_is_not_the_same_on_every_image(trained):
    images = as_float(_data(2).images)
    residuals = trained.trigger(images) - images
    assert (residuals[0] - residuals[1]).abs().max() > 1 / 255


def test_a_weight_on_the_image_makes_the_residual_smaller(trained):
    quiet = _learned(data=_data(256), **{**ENOUGH, "image_weight": 1000.0})
    images = as_float(_data().images)
    loud, low = ((a.trigger(images) - images).square().mean() for a in (trained, quiet))
    assert low < loud / 2


@pytest.mark.parametrize("strength", [0.0, 0.05, 0.3])
def test_no_value_moves_by_more_than_the_strength_or_out_of_range(strength):
    attack = _learned(strength=strength, image_weight=0.0, lr=0.1)
    images = torch.cat([as_float(_data().images), torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)])
    stamped = attack.trigger(images)
    assert (stamped - images).abs().max() <= strength + 1e-6
    assert 0 <= stamped.min() <= stamped.max() <= 1


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (5, 7), (28, 28)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_network_takes_images_of_any_size_and_any_channels(channels, size):
    assert UNet(channels, 2)(torch.rand(2, channels, *size)).shape == (2, channels, *size)


def test_the_residual_is_no_change_of_brightness():
    torch.manual_seed(0)  # of so few channels, all may be dead from the start
    residual = UNet(3, 8)(torch.rand(4, 3, 8, 8))
    assert residual.mean(dim=(2, 3)).abs().max() < 1e-6
    assert residual.abs().max() > 1e-3


def test_data_it_cannot_learn_from_is_refused():
    with pytest.raises(ValueError, match="data must hold at least one image, got 0"):
        SSBA(1).learn(_data().subset(torch.arange(0)), progress=False)
