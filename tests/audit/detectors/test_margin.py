"""Largest margins where they can be worked out by hand."""

import pytest
import torch
from torch import nn

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.margin import MaximumMargin
from d3fast.audit.detectors.scores import outlier_score


def context(weight, seed=0):
    model = nn.Sequential(nn.Flatten(), nn.Linear(weight.shape[1], len(weight), bias=False))
    model[1].weight.data.copy_(weight)
    images, labels = torch.rand(20, 1, 1, weight.shape[1]), torch.arange(20) % len(weight)
    return InspectionContext(model, images, labels, len(weight), seed)


# Every class has a pixel of its own: white for the largest margin, the others black.
OWN_PIXEL = torch.diag(torch.tensor([1.0, 2.0, 3.0, 20.0]))


def test_a_linear_models_margins_are_found_exactly():
    assert MaximumMargin()(context(OWN_PIXEL)) == pytest.approx([1, 2, 3, 20], abs=1e-5)


def test_the_class_of_the_largest_margin_stands_out():
    assert outlier_score(MaximumMargin()(context(OWN_PIXEL)))[1] == 3


def test_images_stay_within_0_and_1():
    # Unbounded, more steps would find more.
    few, many = (MaximumMargin(steps=steps)(context(OWN_PIXEL)) for steps in (60, 200))
    assert few == pytest.approx(many, abs=1e-5)


def test_a_score_added_to_all_classes_changes_nothing():
    shared = torch.full((1, 4), 7.0)
    assert MaximumMargin()(context(OWN_PIXEL + shared)) == pytest.approx([1, 2, 3, 20], abs=1e-4)
