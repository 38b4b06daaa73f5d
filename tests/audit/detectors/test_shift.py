"""Shared shifts on models whose weak direction is known."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.scores import outlier_score
from d3fast.audit.detectors.shift import SharedShift
from d3fast.testing.toys import Templates, template_samples


class Blend(nn.Module):
    """Templates, and a faint picture all over the image that wins for class 6."""

    def __init__(self):
        super().__init__()
        self.body = Templates(False)
        self.picture = torch.randn(64, generator=torch.Generator().manual_seed(5)).sign()

    def forward(self, images):
        likeness = (images.flatten(1) - 0.5) @ self.picture
        bonus = 40 * nn.functional.softplus(likeness - 4)
        return self.body(images) + bonus[:, None] * torch.eye(10)[6]


@pytest.fixture
def context():
    def make(model=None, seed=0):
        data = template_samples()
        return InspectionContext(model or Templates(False), data.images, data.labels, 10, seed)

    return make


def test_of_size_0_it_is_the_loss_of_the_other_classes_images(context):
    plain = context()
    statistics = SharedShift(size=0.0, steps=3)(plain)
    for target in (0, 9):
        scores = plain.scores(plain.images[plain.others(target)]).detach()
        loss = cross_entropy(scores, torch.full((len(scores),), target))
        assert statistics[target] == pytest.approx(-float(loss), rel=1e-5)


def test_a_larger_shift_reaches_more(context):
    small, large = (SharedShift(size=size)(context()) for size in (0.02, 0.1))
    assert all(more > less for less, more in zip(small, large, strict=True))


def test_the_class_of_a_faint_picture_stands_out(context):
    value, target = outlier_score(SharedShift(size=0.1)(context(Blend())))
    assert target == 6
    assert value > 2 * outlier_score(SharedShift(size=0.1)(context()))[0]


def test_a_size_out_of_range_is_refused():
    with pytest.raises(ValueError, match="size must be finite and >= 0"):
        SharedShift(size=-1.0)
