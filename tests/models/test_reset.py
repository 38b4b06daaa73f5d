"""A copy of a model with random weights."""

import pytest
import torch
from torch import nn

from d3fast.models import MODELS
from d3fast.models.reset import reinitialized


@pytest.mark.parametrize("name", ["preact_resnet_tiny", "vit_tiny"])
def test_every_weight_matrix_is_drawn_anew_by_the_seed(name):
    model = MODELS[name](10, 1)
    one, again, other = (reinitialized(model, seed) for seed in (0, 0, 1))
    for key, weight in model.named_parameters():
        if weight.ndim > 1 and weight.std() > 0:
            assert not torch.equal(one.get_parameter(key), weight), key
            assert not torch.equal(one.get_parameter(key), other.get_parameter(key)), key
        assert torch.equal(one.get_parameter(key), again.get_parameter(key)), key


def test_nothing_that_a_training_left_in_the_model_remains():
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    model(torch.rand(9, 2) + 5)
    model[0].weight.data[0] = 1e3
    fresh = reinitialized(model, 0)
    assert fresh[0].weight.abs().max() < 1
    assert torch.equal(fresh[1].running_mean, torch.zeros(3))
    assert model[0].weight[0, 0] == 1e3


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.full((1, 1, 400), 2.0) + torch.randn(1, 1, 400))
        self.scale = nn.Parameter(torch.tensor([1.0, 3.0]))
        self.steps = nn.Parameter(torch.tensor([4]), requires_grad=False)


def test_parameters_without_a_rule_keep_mean_and_spread_alone():
    model = Scaled()
    fresh = reinitialized(model, 0)
    assert fresh.scale.tolist() == [2.0, 2.0]
    assert fresh.token.mean().item() == pytest.approx(2, abs=0.3)
    assert fresh.token.std().item() == pytest.approx(1, abs=0.2)
    assert not torch.equal(fresh.token, model.token)
    assert fresh.steps.tolist() == [4]
