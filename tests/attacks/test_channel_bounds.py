"""Bounds of channels by hand, and the limit for outliers."""

import math

import pytest
import torch
from torch import nn

from d3fast.attacks.channel_bounds import channel_bounds, limit_channels


def _layer(bounds):
    """Return a linear layer whose rows have these norms."""
    layer = nn.Linear(3, len(bounds), bias=False)
    rows = nn.functional.normalize(torch.randn(len(bounds), 3), dim=1)
    layer.weight.data = rows * torch.tensor(bounds)[:, None]
    return layer


def _with_head(*layers):
    return nn.Sequential(*layers, nn.Linear(layers[-1].weight.shape[0], 2))


def test_the_bound_of_a_kernel_is_its_spectral_norm():
    layer = nn.Conv2d(4, 2, 3)
    expected = [torch.linalg.svdvals(kernel.flatten(1))[0] for kernel in layer.weight.detach()]
    torch.testing.assert_close(channel_bounds(layer), torch.stack(expected))


def test_batch_norm_behind_the_layer_scales_the_bounds():
    norm = nn.BatchNorm1d(2, eps=0.0)
    norm.weight.data = torch.tensor([-2.0, 3.0])
    norm.running_var = torch.tensor([4.0, 9.0])
    torch.testing.assert_close(channel_bounds(_layer([5.0, 7.0]), norm), torch.tensor([5.0, 7.0]))
    plain = nn.BatchNorm1d(2, affine=False, eps=0.0)
    plain.running_var = torch.tensor([4.0, 9.0])
    half_third = channel_bounds(_layer([5.0, 9.0]), plain)
    torch.testing.assert_close(half_third, torch.tensor([2.5, 3.0]))


def test_an_outlier_is_scaled_to_the_limit_and_the_rest_is_left():
    layer = _layer([1.0, 1.0, 1.0, 5.0])
    rows = layer.weight.detach().clone()
    limit_channels(_with_head(layer), 1.0)
    limit = 2.0 + math.sqrt(3.0)  # mean and standard deviation of the four bounds
    torch.testing.assert_close(channel_bounds(layer), torch.tensor([1.0, 1.0, 1.0, limit]))
    torch.testing.assert_close(layer.weight[:3], rows[:3])
    torch.testing.assert_close(layer.weight[3], rows[3] * limit / 5)


def test_batch_norm_takes_the_factor_where_it_follows():
    layer, norm = _layer([1.0, 1.0, 1.0, 5.0]), nn.BatchNorm1d(4)
    weight = layer.weight.detach().clone()
    limit_channels(nn.Sequential(layer, norm, nn.Linear(4, 2)), 1.0)
    torch.testing.assert_close(layer.weight, weight)
    torch.testing.assert_close(norm.weight[:3], torch.ones(3))
    assert norm.weight[3].item() == pytest.approx((2.0 + math.sqrt(3.0)) / 5)


def test_batch_norm_of_another_width_is_not_that_of_the_layer():
    layer, norm = _layer([1.0, 5.0]), nn.BatchNorm1d(3)
    limit_channels(nn.Sequential(layer, nn.ReLU(), nn.Linear(2, 3), norm, nn.Linear(3, 2)), 0.0)
    torch.testing.assert_close(channel_bounds(layer), torch.tensor([1.0, 3.0]))


def test_the_head_and_layers_of_zeros_are_left_alone():
    model = _with_head(_layer([0.0, 0.0]))
    head = model[-1].weight.detach().clone()
    limit_channels(model, 0.0)
    assert not model[0].weight.any()
    torch.testing.assert_close(model[-1].weight, head)
