"""Additive patterns: the gradient by differences, surrogates, resizing, and foreign tensors."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from d3fast.attacks.additive import (
    add_pattern,
    load_pattern_state,
    pattern_gradient,
    surrogate_model,
)
from d3fast.testing.toys import linear_model, random_images


def _surrogate(model=None, stream="a", seed=0):
    data = random_images(32)
    return surrogate_model(
        model,
        data,
        name="preact_resnet_tiny",
        epochs=1,
        stream=stream,
        seed=seed,
        progress=False,
    )


def test_the_gradient_is_that_of_the_mean_loss_of_stamped_images():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    images, labels = torch.rand(5, 1, 2, 2).double(), torch.arange(5) % 3
    pattern = torch.full((1, 2, 2), 0.3).double()

    def loss(pattern):
        return functional.cross_entropy(model((images + pattern).clamp(0, 1)), labels)

    with torch.no_grad():
        expected = torch.zeros_like(pattern)
        for place in range(4):
            nudge = torch.zeros(4).double()
            nudge[place] = 1e-6
            nudge = nudge.view(1, 2, 2)
            slope = (loss(pattern + nudge) - loss(pattern - nudge)) / 2e-6
            expected.view(-1)[place] = slope
        torch.testing.assert_close(pattern_gradient(model, images, labels, pattern), expected)


def test_a_given_surrogate_is_copied_and_stays_as_it_is():
    model = linear_model().train()
    weights = copy.deepcopy(model.state_dict())
    surrogate = _surrogate(model)
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not surrogate.training
    assert not any(p.requires_grad for p in surrogate.parameters())
    assert all(torch.equal(weights[k], v) for k, v in surrogate.state_dict().items())


def test_a_trained_surrogate_is_decided_by_seed_and_stream():
    def weights(**options):
        return torch.cat([p.flatten() for p in _surrogate(**options).parameters()])

    first = weights()
    assert torch.equal(weights(), first)
    assert not torch.equal(weights(seed=1), first)
    assert not torch.equal(weights(stream="b"), first)


def test_on_images_of_another_size_the_pattern_is_resized():
    pattern = torch.linspace(-0.2, 0.2, 64).view(1, 8, 8)
    larger = functional.interpolate(pattern[None], (16, 24), mode="bilinear", antialias=True)
    grey = torch.full((1, 1, 16, 24), 0.5)
    torch.testing.assert_close(add_pattern(grey, pattern) - 0.5, larger)


@pytest.mark.parametrize(
    ("state", "error_text"),
    [
        ({"patch": torch.zeros(1, 8, 8)}, "SimpleNamespace learns the tensor pattern, got patch"),
        ({"pattern": torch.zeros(8, 8)}, r"must be \(C, H, W\) of float32, got shape \(8, 8\)"),
        ({"pattern": torch.zeros(1, 0, 8)}, r"got shape \(1, 0, 8\)"),
        ({"pattern": torch.zeros(1, 8, 8, dtype=torch.uint8)}, r"of torch\.uint8"),
        ({"pattern": torch.full((1, 8, 8), 0.3)}, r"must be within limit=0\.2, got 0\.3"),
        ({"pattern": torch.full((1, 8, 8), torch.nan)}, r"must be within limit=0\.2, got nan"),
    ],
)
def test_tensors_that_are_no_pattern_are_refused_and_change_nothing(state, error_text):
    attack = SimpleNamespace(limit=0.2, _learned={"pattern": torch.zeros(1, 4, 4)})
    before = dict(attack._learned)
    with pytest.raises(ValueError, match=error_text):
        load_pattern_state(attack, state)
    assert attack._learned == before
