"""Differential shifts on models whose weak direction a repair removes, or shares."""

import pytest
import torch
from torch import nn

from d3fast.audit.detectors import differential
from d3fast.audit.detectors.context import InspectionContext, open_context
from d3fast.audit.detectors.differential import DifferentialShift, repairs_of
from d3fast.audit.detectors.scores import outlier_score
from d3fast.testing.toys import Templates, template_samples
from tests.audit.detectors.test_shift import Blend

SHORT = DifferentialShift(epochs=2, size=0.1)


@pytest.fixture
def context():
    def make(model=None, seed=0):
        data = template_samples()
        return InspectionContext(model or Templates(False), data.images, data.labels, 10, seed)

    return make


@pytest.fixture
def repaired_as(monkeypatch):
    """Let every repair return a given model."""

    def use(model):
        frozen = model.eval().requires_grad_(False)
        monkeypatch.setattr(differential, "repairs_of", lambda *_: [frozen])

    return use


def test_a_picture_that_the_repair_removed_stands_out(context, repaired_as):
    repaired_as(Templates(False))
    value, target = outlier_score(SHORT(context(Blend())))
    assert target == 6
    assert value > 6


def test_a_weakness_that_the_repair_shares_cancels(context, repaired_as):
    repaired_as(Blend())
    assert SHORT(context(Blend())) == pytest.approx([0.0] * 10, abs=1e-5)


def test_a_repair_is_frozen_repeatable_and_leaves_the_suspect():
    model, data = Templates(True), template_samples()
    with open_context(model, data, torch.device("cpu")) as context:
        first, other = repairs_of(context, 2, 1)
        again, _ = repairs_of(context, 2, 1)
    assert not first.training
    assert not any(p.requires_grad for p in first.parameters())
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)
    assert not torch.equal(first.head.weight, model.head.weight)


class Sure(nn.Module):
    """Is certain of class 0."""

    def forward(self, images):
        return 200 * torch.eye(10)[0] + 0 * images.flatten(1).sum(dim=1, keepdim=True)


def test_probabilities_below_a_thousandth_are_the_same(context, repaired_as):
    repaired_as(Sure())
    assert SHORT(context(Sure())) == pytest.approx([0.0] * 10)


@pytest.mark.parametrize("name", ["size", "bound"])
def test_a_number_out_of_range_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be finite and >= 0"):
        DifferentialShift(**{name: -1.0})
