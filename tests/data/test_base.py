"""Image data in memory, its batches, and stratified parts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from d3fast.data import Augment, ImageData, as_float, stratified_split


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
    ("images", "labels", "complaint"),
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
def test_data_that_does_not_fit_together_is_refused(images, labels, complaint):
    with pytest.raises(ValueError, match=complaint):
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


# ---------------------------------------------------------------------- batches


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


def _passes(augment, seed=0, passes=3):
    images = torch.randint(256, (40, 1, 6, 6), dtype=torch.uint8, generator=_seeded(1))
    loader = ImageData(images, torch.arange(40), ("x",) * 40).batches(16, _seeded(seed), augment)
    batches = [list(loader) for _ in range(passes)]
    return (
        [torch.cat([labels for _, labels in batch]) for batch in batches],
        [torch.cat([images for images, _ in batch]) for batch in batches],
    )


def _seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_augmentation_leaves_the_order_of_the_images_as_it_is():
    plain, augmented = _passes(None), _passes(Augment(crop=2))
    assert all(torch.equal(a, b) for a, b in zip(plain[0], augmented[0], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(plain[1], augmented[1], strict=True))
    assert augmented[1][0].dtype == torch.float32
    assert augmented[1][0].max() <= 1


def test_every_pass_is_augmented_anew_and_the_seed_decides_how():
    orders, passes = _passes(Augment(crop=2))
    by_label = [images[order.argsort()] for order, images in zip(orders, passes, strict=True)]
    assert not torch.equal(by_label[0], by_label[1])
    assert not torch.equal(by_label[1], by_label[2])
    again, other = _passes(Augment(crop=2)), _passes(Augment(crop=2), seed=9)
    assert all(torch.equal(a, b) for a, b in zip(passes, again[1], strict=True))
    assert not torch.equal(by_label[0], other[1][0][other[0][0].argsort()])


def test_a_single_image_is_augmented_anew_too():
    data = ImageData(torch.full((1, 1, 9, 9), 255, dtype=torch.uint8), torch.tensor([0]), ("a",))
    loader = data.batches(4, _seeded(0), Augment(crop=4))
    seen = {tuple(images.flatten().tolist()) for _ in range(8) for images, _ in loader}
    assert len(seen) > 4


def test_the_seed_decides_the_draws_and_not_the_order_alone():
    data = ImageData(torch.full((1, 1, 9, 9), 255, dtype=torch.uint8), torch.tensor([0]), ("a",))
    firsts = [next(iter(data.batches(1, _seeded(s), Augment(crop=4))))[0] for s in range(4)]
    assert len({tuple(images.flatten().tolist()) for images in firsts}) > 1


def test_augmentation_without_a_generator_is_refused():
    with pytest.raises(ValueError, match="shuffle must be given with augment"):
        _numbered(3).batches(2, augment=Augment())


# ---------------------------------------------------------------------- stratified parts


@st.composite
def _labels_and_sizes(draw):
    labels = draw(st.lists(st.integers(0, 5), max_size=120))
    shares = draw(st.lists(st.integers(0, 120), max_size=4))
    sizes, left = [], len(labels)
    for share in shares:
        sizes.append(min(share, left))
        left -= sizes[-1]
    return torch.tensor(labels, dtype=torch.long), sizes


@given(case=_labels_and_sizes(), seed=st.integers(0, 2**32))
def test_parts_are_disjoint_of_exact_size_and_keep_the_shares_of_the_classes(case, seed):
    labels, sizes = case
    parts = stratified_split(labels, sizes, torch.Generator().manual_seed(seed))
    assert [len(part) for part in parts] == sizes
    taken = torch.cat([*parts, torch.empty(0, dtype=torch.long)])
    assert len(taken.unique()) == len(taken)
    left = labels.bincount(minlength=6).double()
    for part, size in zip(parts, sizes, strict=True):
        counts = labels[part].bincount(minlength=6)
        exact = left * (size / max(left.sum().item(), 1))
        assert ((counts - exact).abs() <= 1).all()
        left -= counts


def test_balanced_classes_are_split_exactly():
    labels = torch.arange(100) % 5
    parts = stratified_split(labels, [20, 50, 30], torch.Generator().manual_seed(0))
    assert [labels[p].bincount().tolist() for p in parts] == [[4] * 5, [10] * 5, [6] * 5]


def test_a_part_comes_in_random_order_not_class_by_class():
    labels = torch.arange(100) % 5
    (part,) = stratified_split(labels, [100], torch.Generator().manual_seed(0))
    assert not torch.equal(labels[part], labels[part].sort().values)


def test_the_split_follows_the_generator():
    labels = torch.arange(100) % 5
    first, again, other = (
        stratified_split(labels, [30, 40], torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert set(first[0].tolist()) != set(other[0].tolist())


@pytest.mark.parametrize("sizes", [[-1], [3, -1], [11], [6, 5]])
def test_sizes_that_cannot_be_are_refused(sizes):
    with pytest.raises(ValueError, match="sizes must be >= 0 and sum to <= 10, got"):
        stratified_split(torch.zeros(10, dtype=torch.long), sizes, torch.Generator())
