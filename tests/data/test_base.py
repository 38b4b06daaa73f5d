"""Image data in memory, its batches, and stratified parts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3fast.data import ImageData, as_float
from d3fast.data.base import on_floats


def _numbered(count, classes=3):
    """Images whose one pixel says which one it is."""
    images = torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1)
    names = tuple("abcdefghij"[:classes])
    return ImageData(images, torch.arange(count) % classes, names)


def _numbers(images):
    return (images.flatten() * 255).round().int().tolist()


def test_bytes_become_floats_between_0_and_1():
    floats = as_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    assert floats.dtype == torch.float32
    assert torch.equal(floats, torch.tensor([0.0, 0.2, 1.0]))


def test_floats_stay_as_they_are():
    floats = torch.rand(3)
    assert as_float(floats) is floats


IMAGES = torch.zeros(4, 1, 2, 2, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("images", "labels", "error_text"),
    [
        (IMAGES[0], LABELS, r"images must be \(N, C, H, W\) .* got shape \(1, 2, 2\)"),
        (IMAGES.long(), LABELS, r"uint8 or float32, got .* of torch\.int64"),
        (IMAGES.double(), LABELS, r"uint8 or float32, got .* of torch\.float64"),
        (IMAGES, LABELS[:3], r"labels must be \(4,\) of int64, got shape \(3,\)"),
        (IMAGES, LABELS[:, None], r"labels must be \(4,\) of int64, got shape \(4, 1\)"),
        (IMAGES, LABELS.float(), r"labels must be .* of torch\.float32"),
        (IMAGES, LABELS.int(), r"labels must be .* of torch\.int32"),
        (IMAGES, torch.tensor([0, 1, 2, 1]), r"labels must be in 0\.\.1, got 2"),
        (IMAGES, torch.tensor([0, 1, -1, 1]), r"labels must be in 0\.\.1, got -1"),
    ],
)
def test_data_that_does_not_fit_together_is_refused(images, labels, error_text):
    with pytest.raises(ValueError, match=error_text):
        ImageData(images, labels, ("a", "b"))


def test_data_without_images_is_allowed():
    empty = ImageData(IMAGES[:0], LABELS[:0], ("a", "b"))
    assert len(empty) == 0
    assert list(empty.batches(2)) == []


def test_a_subset_keeps_images_and_labels_together_in_the_order_asked_for():
    part = _numbered(7).subset(torch.tensor([5, 0, 3]))
    assert part.images.flatten().tolist() == [5, 0, 3]
    assert part.labels.tolist() == [2, 0, 0]
    assert part.classes == ("a", "b", "c")


def test_moving_data_keeps_everything():
    moved = _numbered(4).to("cpu")
    assert moved.images.flatten().tolist() == [0, 1, 2, 3]
    assert moved.shape == (1, 1, 1)


@given(count=st.integers(0, 200), batch_size=st.integers(1, 70), shuffled=st.booleans())
def test_a_pass_has_every_image_once_in_few_even_batches(count, batch_size, shuffled):
    generator = torch.Generator().manual_seed(0) if shuffled else None
    loader = _numbered(count).batches(batch_size, generator)
    batches = list(loader)
    sizes = [len(labels) for _, labels in batches]
    assert sorted(n for images, _ in batches for n in _numbers(images)) == list(range(count))
    assert len(batches) == len(loader) == math.ceil(count / batch_size)
    assert max(sizes, default=0) <= batch_size
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


def test_without_a_generator_images_come_in_order():
    loader = _numbered(10).batches(4)
    for _ in range(2):
        assert [n for images, _ in loader for n in _numbers(images)] == list(range(10))


def test_every_pass_is_shuffled_anew_and_labels_follow_their_images():
    loader = _numbered(50).batches(8, torch.Generator().manual_seed(0))
    passes = []
    for _ in range(3):
        numbers = [n for images, _ in loader for n in _numbers(images)]
        passes.append(numbers)
        for images, labels in loader:
            assert labels.tolist() == [n % 3 for n in _numbers(images)]
    assert len({tuple(numbers) for numbers in passes}) == 3
    assert list(range(50)) not in passes


def test_the_same_generator_state_gives_the_same_passes():
    def two_passes(seed):
        loader = _numbered(50).batches(8, torch.Generator().manual_seed(seed))
        return [_numbers(images) for _ in range(2) for images, _ in loader]

    assert two_passes(3) == two_passes(3)
    assert two_passes(3) != two_passes(4)


def test_batches_are_floats_between_0_and_1():
    images, labels = next(iter(_numbered(256 - 1).batches(255)))
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 254 / 255
    assert labels.dtype == torch.int64


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_1_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be an integer >= 1, got {batch_size}"):
        _numbered(3).batches(batch_size)


@pytest.mark.parametrize("leading", [(), (5,), (2, 3), (0,)])
def test_a_change_sees_float_batches_and_gives_back_what_came(leading):
    def halve(images):
        assert images.ndim == 4
        assert images.dtype == torch.float32
        return images / 2

    images = torch.randint(0, 256, (*leading, 3, 4, 5), dtype=torch.uint8)
    changed = on_floats(images, halve)
    assert changed.dtype == torch.uint8
    assert torch.equal(changed, (images / 2).round().to(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_floats_keep_their_type_and_stay_within_0_and_1(dtype):
    changed = on_floats(torch.tensor([[[0.25, 0.75]]], dtype=dtype), lambda x: 4 * x - 2)
    assert changed.dtype == dtype
    assert changed.tolist() == [[[0.0, 1.0]]]
