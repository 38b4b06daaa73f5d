"""Length and angle of head rows, counted by hand."""

import pytest
import torch
from torch import nn

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.rows import HeadAngle, HeadNorm
from d3fast.audit.detectors.scores import outlier_score


def context(weight):
    head = nn.Linear(weight.shape[1], len(weight))
    head.weight.data.copy_(weight)
    return InspectionContext(head, torch.zeros(0), torch.zeros(0).long(), len(weight))


def drawn():
    return torch.randn(10, 40, generator=torch.Generator().manual_seed(0))


def test_the_norm_is_that_of_the_row_without_the_mean_of_all_rows():
    weight = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 8.0]])  # means 1 and 4
    assert HeadNorm()(context(weight)) == pytest.approx([20**0.5, 1.0, 17**0.5])


def test_the_angle_is_the_negative_mean_cosine_with_the_other_rows():
    weight = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    assert HeadAngle()(context(weight)) == pytest.approx([1 / 3] * 4)


def test_a_longer_row_has_the_largest_norm():
    weight = drawn()
    weight[7] *= 3
    score, target = outlier_score(HeadNorm()(context(weight)))
    assert target == 7
    assert score > 5


def test_a_row_away_from_all_others_has_the_largest_angle():
    weight = drawn()
    weight[4] -= weight.sum(dim=0)
    assert outlier_score(HeadAngle()(context(weight)))[1] == 4


@pytest.mark.parametrize("detector", [HeadNorm(), HeadAngle()])
def test_the_same_vector_added_to_all_rows_changes_nothing(detector):
    moved = detector(context(drawn() + 5 * torch.randn(1, 40)))
    assert moved == pytest.approx(detector(context(drawn())), rel=1e-3, abs=1e-5)


def test_rows_that_are_all_alike_have_no_angle():
    assert HeadAngle()(context(torch.ones(3, 4))) == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("detector", [HeadNorm(), HeadAngle()])
def test_a_head_without_a_row_per_class_is_refused(detector):
    wrong = InspectionContext(nn.Linear(4, 3), torch.zeros(0), torch.zeros(0).long(), 2)
    with pytest.raises(ValueError, match=f"{detector.name} needs a row .* for each of the 2"):
        detector(wrong)
