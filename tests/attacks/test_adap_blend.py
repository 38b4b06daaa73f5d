"""Adap-Blend: the pieces of the pattern, and what is poisoned. The rest is in test_contract.py."""

import pytest
import torch

from d3fast.attacks import AdapBlend
from d3fast.testing.toys import random_images


def _seeded():
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize(("share", "shown"), [(0.0, 0), (0.5, 8), (0.26, 4), (1.0, 16)])
def test_an_image_shows_a_share_of_the_pieces(share, shown):
    masks = AdapBlend(0, share=share).masks(50, 8, 12, _seeded())
    assert masks.shape == (50, 1, 8, 12)
    pieces = masks[:, 0].unflatten(1, (4, 2)).unflatten(3, (4, 3))
    assert torch.equal(pieces.amax((2, 4)), pieces.amin((2, 4)))  # whole pieces, 2 x 3 pixels
    assert pieces[:, :, 0, :, 0].sum((1, 2)).tolist() == [shown] * 50


def test_every_piece_is_shown_equally_often():
    often = AdapBlend(0).masks(4000, 4, 4, _seeded()).mean((0, 1))
    assert (often - 0.5).abs().max() < 0.05


def test_training_images_show_the_fainter_pattern_in_the_pieces_alone():
    attack, images = AdapBlend(0, alpha=0.4, train_alpha=0.1), torch.rand(5, 2, 8, 8).double()
    masks = attack.masks(5, 8, 8, _seeded()).bool()
    faint = AdapBlend(0, alpha=0.1).trigger(images)
    stamped = attack.partial(images, _seeded())
    torch.testing.assert_close(stamped, torch.where(masks, faint, images))


def test_crossed_images_have_parts_of_the_pattern_and_their_own_labels():
    data = random_images()
    poisoned = AdapBlend(1, cross_ratio=2.0).poison(data, 0.1, generator=_seeded())
    changed = (poisoned.data.images != data.images).flatten(1).any(1)
    relabelled = poisoned.data.labels != data.labels
    assert (int(changed.sum()), int(relabelled.sum())) == (30, 10)
    assert torch.equal(relabelled.nonzero().flatten(), poisoned.indices)
