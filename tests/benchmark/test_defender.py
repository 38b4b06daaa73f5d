"""A defender's samples are disjoint, stratified and drawn by the seed."""

import pytest
import torch

from d3fast.benchmark.defender import defender_samples, without_labels
from d3fast.data import ImageData, digits


def _keys(images):
    return {image.numpy().tobytes() for image in images}


def test_samples_are_disjoint_stratified_and_the_same_whatever_is_held_out():
    clean = digits(0, train=256, clean=120).clean
    train, val, others = defender_samples(clean, 50, 0.2, seed=3)
    assert (len(train), len(val), len(others)) == (40, 10, 70)
    parts = [_keys(part.images) for part in (train, val, others)]
    assert set.union(*parts) == _keys(clean.images)
    assert sum(map(len, parts)) == len(clean)
    assert train.labels.bincount(minlength=10).min() >= 3
    everything, nothing, same = defender_samples(clean, 50, 0.0, seed=3)
    assert nothing is None
    assert _keys(everything.images) == parts[0] | parts[1]
    assert torch.equal(same.images, others.images)
    with pytest.raises(ValueError, match="clean must be <= the 120 images kept aside, got 121"):
        defender_samples(clean, 121, 0.2, seed=0)


def test_images_without_labels_are_none_of_the_defenders():
    images = torch.arange(120).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).to(torch.uint8)
    clean = ImageData(images, torch.arange(120) % 4, tuple("abcd"))
    train, val, others = defender_samples(clean, 50, 0.2, seed=3)
    more = without_labels(others, 30, 16, None, seed=3)
    own = {int(image.flatten()[0]) for part in (train, val) for image in part.images}
    drawn = {int(image.flatten()[0]) for image in more.data.images}
    assert len(drawn) == 30
    assert not drawn & own
    again = without_labels(others, 30, 16, None, seed=3)
    assert torch.equal(next(iter(more)), next(iter(again)))
    with pytest.raises(ValueError, match="unlabelled must be <= the 70 images left, got 71"):
        without_labels(others, 71, 16, None, seed=3)
