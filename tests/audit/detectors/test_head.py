"""Support in the weights of the head, counted by hand."""

import pytest
import torch
from torch import nn

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.head import HeadWeights
from d3fast.audit.detectors.scores import outlier_score


def context(weight):
    head = nn.Linear(weight.shape[1], len(weight))
    head.weight.data.copy_(weight)
    model = nn.Sequential(nn.Flatten(), head)
    images, labels = torch.rand(2 * len(weight), 1, 1, weight.shape[1]), torch.arange(2)
    return InspectionContext(model, images, labels.repeat(len(weight)), len(weight))


def drawn(classes=10, features=40):
    return torch.randn(classes, features, generator=torch.Generator().manual_seed(0))


def test_it_is_the_sum_of_positive_weights_above_the_mean_of_the_classes():
    weight = torch.tensor([[3.0, 0.0], [0.0, 6.0], [0.0, 0.0]])  # means 1 and 2
    assert HeadWeights()(context(weight)) == [2.0, 4.0, 0.0]


def test_a_row_that_draws_on_more_features_stands_out():
    weight = drawn()
    weight[7] += weight[2].relu() + weight[4].relu()
    assert outlier_score(HeadWeights()(context(weight)))[1] == 7


def test_the_same_vector_added_to_all_rows_changes_nothing():
    weight = drawn()
    moved = HeadWeights()(context(weight + 5 * torch.randn(1, 40)))
    assert moved == pytest.approx(HeadWeights()(context(weight)), rel=1e-4)


def test_classes_in_another_order_are_the_same_numbers_in_that_order():
    weight, order = drawn(), torch.arange(9, -1, -1)
    assert HeadWeights()(context(weight[order])) == pytest.approx(
        HeadWeights()(context(weight))[::-1]
    )


def test_a_head_of_1x1_convolution_is_a_head():
    weight = drawn()
    model = nn.Sequential(nn.Conv2d(40, 10, 1), nn.Flatten())
    model[0].weight.data.copy_(weight.view(10, 40, 1, 1))
    convolved = InspectionContext(model, torch.rand(20, 40, 1, 1), torch.arange(20) % 10, 10)
    assert HeadWeights()(convolved) == pytest.approx(HeadWeights()(context(weight)))


def test_a_head_without_a_row_per_class_is_refused():
    weight = drawn(classes=4)
    wrong = InspectionContext(nn.Linear(40, 4), torch.rand(4, 1, 1, 40), torch.arange(4) % 2, 2)
    with pytest.raises(ValueError, match="a row of weights for each of the 2 classes"):
        HeadWeights()(wrong)
    assert len(HeadWeights()(context(weight))) == 4
