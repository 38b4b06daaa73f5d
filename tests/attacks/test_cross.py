"""Poisoned, crossed and clean rows: how many, which, and what becomes of them."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3fast.attacks.cross import (
    PoisonedBatches,
    RedrawnBatches,
    choose_rows,
    other_positions,
    poison_crossed,
)
from d3fast.data import ImageData


@dataclass(frozen=True)
class _Black:
    """A trigger anybody can see: the image turns black."""

    target: int = 0
    mapping: str = "all-to-one"

    def trigger(self, images):
        return torch.zeros_like(images)


def _white(images, at, generator):
    return torch.full_like(images, 255 if images.dtype == torch.uint8 else 1.0)


def _data(count=100, classes=5):
    """Grey images of one pixel that tell their position: level 20 + position."""
    images = torch.arange(20, 20 + count).reshape(count, 1, 1, 1).to(torch.uint8)
    return ImageData(images, torch.arange(count) % classes, tuple("abcdefgh"[:classes]))


def _batches(ratio=0.1, cross_ratio=2.0, batch_size=32, seed=0, data=None, attack=None):
    return RedrawnBatches(
        attack or _Black(),
        data or _data(),
        ratio=ratio,
        cross_ratio=cross_ratio,
        batch_size=batch_size,
        seed=seed,
    )


def _passed(batches):
    """One pass over a loader: levels 0..255 of all images, and their labels."""
    stamped = list(PoisonedBatches(batches, _white, torch.Generator()))
    levels = torch.cat([images.flatten() for images, _ in stamped])
    return (255 * levels).round().long(), torch.cat([labels for _, labels in stamped])


@given(ratio=st.floats(0, 0.8), cross_ratio=st.floats(0, 3), seed=st.integers(0, 2**32))
def test_exact_numbers_are_poisoned_and_crossed_and_nobody_is_both(ratio, cross_ratio, seed):
    rows = choose_rows(_Black(2), _data(), ratio, cross_ratio, torch.Generator().manual_seed(seed))
    poisoned, crossed = set(rows.poisoned.tolist()), set(rows.crossed.tolist())
    assert len(poisoned) == len(rows.poisoned) == round(ratio * 100)
    assert len(crossed) == len(rows.crossed)
    assert len(crossed) == min(round(cross_ratio * len(poisoned)), 100 - len(poisoned))
    assert not poisoned & crossed
    assert all(_data().labels[row] != 2 for row in poisoned)
    assert rows.crossed.tolist() == sorted(crossed)


def test_images_of_the_target_are_crossed_like_all_others():
    rows = choose_rows(_Black(2), _data(), 0.1, 9.0, torch.Generator().manual_seed(0))
    assert len(rows.crossed) == 90
    assert (_data().labels[rows.crossed] == 2).sum() == 20


def test_another_position_is_never_the_own_and_every_other_one_comes_up():
    own = torch.arange(4).repeat(100)
    other = other_positions(own, 4, torch.Generator().manual_seed(0))
    assert (own != other).all()
    assert {tuple(pair) for pair in zip(own.tolist(), other.tolist(), strict=True)} == {
        (a, b) for a in range(4) for b in range(4) if a != b
    }


def test_poisoned_once_the_crossed_keep_their_labels_and_are_no_poison():
    data = _data()
    before = data.images.clone(), data.labels.clone()
    poisoned = poison_crossed(
        _Black(1), data, 0.1, 2.0, None, torch.Generator().manual_seed(0), _white
    )
    levels = poisoned.data.images.flatten()
    assert (levels == 0).nonzero().flatten().tolist() == poisoned.indices.tolist()
    assert len(poisoned.indices) == 10
    assert (levels == 255).sum() == 20
    assert (poisoned.data.labels[levels == 0] == 1).all()
    assert torch.equal(poisoned.data.labels[levels != 0], data.labels[levels != 0])
    untouched = (levels != 0) & (levels != 255)
    assert torch.equal(levels[untouched], data.images.flatten()[untouched])
    assert torch.equal(data.images, before[0])
    assert torch.equal(data.labels, before[1])


@pytest.mark.parametrize("batch_size", [7, 32, 100, 1000])
def test_every_pass_poisons_and_crosses_the_same_numbers_of_other_images(batch_size):
    batches = _batches(batch_size=batch_size)
    passes = [_passed(batches) for _ in range(2)]
    for levels, labels in passes:
        assert (levels == 0).sum() == 10
        assert (levels == 255).sum() == 20
        assert (labels[levels == 0] == 0).all()
        grey = (levels != 0) & (levels != 255)
        assert torch.equal(labels[grey], (levels[grey] - 20) % 5)
        assert labels.bincount()[1:].sum() == 80 - 10
    assert set(passes[0][0].tolist()) != set(passes[1][0].tolist())


def test_batches_say_where_their_images_are():
    data = _data()
    seen = []
    for batch in _batches(data=data):
        assert torch.equal(
            (255 * batch.images).round().to(torch.uint8), data.images[batch.positions]
        )
        assert torch.equal(batch.labels, data.labels[batch.positions])
        assert (batch.labels[batch.rows.poisoned] != 0).all()
        seen += batch.positions.tolist()
    assert sorted(seen) == list(range(100))


def test_the_data_is_not_changed():
    for dtype in (torch.uint8, torch.float32):
        data = _data()
        scale = 255 if dtype == torch.float32 else 1
        data = ImageData((data.images / scale).to(dtype), data.labels, data.classes)
        before = data.images.clone(), data.labels.clone()
        _passed(_batches(data=data))
        assert torch.equal(data.images, before[0])
        assert torch.equal(data.labels, before[1])


def test_a_set_that_cannot_be_poisoned_is_refused_before_the_first_pass():
    with pytest.raises(ValueError, match=r"ratio=0\.9 of 100 samples needs 90 .* there are 80"):
        _batches(ratio=0.9)
