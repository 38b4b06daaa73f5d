"""Scikit-learn's digits, cut into the three parts of a trial."""

import pytest
import torch
from sklearn.datasets import load_digits

from d3fast.data.sklearn_digits import all_digits, digits


def _rows(data):
    return {
        (tuple(image.flatten().tolist()), int(label))
        for image, label in zip(data.images, data.labels, strict=True)
    }


def test_counts_0_to_16_are_stretched_to_bytes():
    data, raw = all_digits(), load_digits()
    assert data.images.shape == (1797, 1, 8, 8)
    assert data.images.dtype == torch.uint8
    counts = torch.from_numpy(raw.images)
    assert torch.equal((data.images[:, 0].double() * 16 / 255).round(), counts)
    assert data.images.min() == 0
    assert data.images.max() == 255
    assert data.labels.tolist() == raw.target.tolist()
    assert data.classes == tuple("0123456789")


def test_what_test_and_clean_leave_over_is_for_training():
    splits = digits(0, train=None, clean=260)
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [1177, 260, 360]


def test_a_smaller_training_part_can_be_asked_for():
    splits = digits(0, train=500, clean=100)
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [500, 100, 360]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_image_is_in_one_part_only(seed):
    splits = digits(seed, train=None, clean=260)
    parts = [_rows(p) for p in (splits.train, splits.clean, splits.test)]
    # The 1,797 images are all different, so they can be told apart by their pixels.
    assert [len(p) for p in parts] == [1177, 260, 360]
    assert set.union(*parts) == _rows(all_digits())


def test_every_part_has_every_class_in_its_share():
    splits = digits(0, train=None, clean=260)
    shares = all_digits().labels.bincount() / 1797
    for part in (splits.train, splits.clean, splits.test):
        assert ((part.labels.bincount() - shares * len(part)).abs() <= 2).all()


def test_the_seed_decides_which_image_goes_where():
    first, again, other = (digits(seed, train=None, clean=260) for seed in (0, 0, 1))
    for part in ("train", "clean", "test"):
        assert torch.equal(getattr(first, part).images, getattr(again, part).images)
        assert torch.equal(getattr(first, part).labels, getattr(again, part).labels)
    assert _rows(first.clean) != _rows(other.clean)


def test_the_test_part_does_not_depend_on_how_many_clean_images_are_asked_for():
    few, many = digits(0, train=None, clean=50), digits(0, train=None, clean=260)
    assert _rows(few.test) == _rows(many.test)


def test_the_defender_may_have_all_that_the_test_part_leaves():
    splits = digits(0, train=None, clean=1437)
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [0, 1437, 360]


@pytest.mark.parametrize(("train", "clean"), [(None, 1438), (1200, 300), (-1, 260), (None, -5)])
def test_more_images_than_there_are_and_negative_numbers_are_refused(train, clean):
    with pytest.raises(ValueError, match="sizes must be >= 0 and sum to <= 1797"):
        digits(0, train=train, clean=clean)
