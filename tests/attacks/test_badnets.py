"""BadNets: the patch by hand. The rest is in test_contract.py."""

import pytest
import torch

from d3fast.attacks import BadNets


def _seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("size", "margin", "expected"),
    [
        (2, 1, [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]),
        (2, 0, [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]),
        (1, 3, [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]),
        (4, 0, [[1] * 4] * 4),
    ],
)
def test_the_patch_stands_margin_pixels_from_the_lower_right_corner(size, margin, expected):
    stamped = BadNets(0, size, margin).trigger(torch.zeros(1, 1, 4, 4))
    assert stamped[0, 0].tolist() == expected


def test_the_patch_is_white_in_bytes_and_floats_and_in_every_channel():
    for dtype, white in ((torch.uint8, 255), (torch.float32, 1.0), (torch.float64, 1.0)):
        stamped = BadNets(0).trigger(torch.zeros(2, 3, 5, 7, dtype=dtype))
        assert stamped.dtype == dtype
        assert stamped[:, :, 1:4, 3:6].unique().tolist() == [white]
        assert stamped.sum() == white * 2 * 3 * 9


def test_pixels_outside_the_patch_stay_as_they_are():
    images = torch.rand(2, 1, 8, 8)
    stamped = BadNets(0, size=2, margin=0).trigger(images)
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[6:, 6:] = False
    assert torch.equal(stamped[..., outside], images[..., outside])


@pytest.mark.parametrize("shape", [(1, 1, 3, 8), (1, 1, 8, 3)])
def test_images_too_small_for_the_patch_are_refused(shape):
    size = f"{shape[2]}x{shape[3]}"
    with pytest.raises(ValueError, match=f"size=3 with margin=1 does not fit {size} images"):
        BadNets(0).trigger(torch.zeros(shape))
