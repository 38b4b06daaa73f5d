"""Scikit-learn's digits, cut into the three parts of a trial."""

import torch
from sklearn.datasets import load_digits

from d3fast.data.sklearn_digits import all_digits, digits


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


def test_the_defender_may_have_all_that_the_test_part_leaves():
    splits = digits(0, train=None, clean=1437)
    assert [len(p) for p in (splits.train, splits.clean, splits.test)] == [0, 1437, 360]
