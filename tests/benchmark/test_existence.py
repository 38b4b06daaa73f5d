"""The backdoor existence coefficient, against the formulas and on known networks."""

import copy

import pytest
import torch
from torch import nn

from d3fast.attacks import BadNets
from d3fast.benchmark.existence import existence_coefficient, linear_cka
from d3fast.models import preact_resnet_tiny

ATTACK = BadNets(target=1)


def _images(count=60, channels=1):
    return torch.rand(count, channels, 12, 12, generator=torch.Generator().manual_seed(0))


def _model(seed):
    torch.manual_seed(seed)
    return preact_resnet_tiny(4, 1).eval()


def _mixed(a, b, share):
    """A model between two models, in weights."""
    mixed = copy.deepcopy(a)
    with torch.no_grad():
        for own, other in zip(mixed.parameters(), b.parameters(), strict=True):
            own.lerp_(other, share)
    return mixed


def test_cka_is_the_quotient_of_hsic_with_linear_kernels():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(30, 5, generator=draw, dtype=torch.float64)
    y = x @ torch.randn(5, 3, generator=draw, dtype=torch.float64) + 0.3
    center = torch.eye(30, dtype=torch.float64) - 1 / 30

    def hsic(a, b):
        return (a @ a.T @ center @ b @ b.T @ center).trace()

    expected = hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()
    assert linear_cka(x, y) == pytest.approx(float(expected), rel=1e-10)


def test_cka_ignores_rotation_scale_and_offset():
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(40, 6, generator=draw)
    rotation, _ = torch.linalg.qr(torch.randn(6, 6, generator=draw))
    assert linear_cka(x, 3 * x @ rotation + 5) == pytest.approx(1, abs=1e-6)


def test_the_suspect_scores_one_and_the_clean_model_zero():
    suspect, never, images = _model(0), _model(1), _images()
    assert existence_coefficient(suspect, suspect, never, images, ATTACK) == pytest.approx(1)
    assert existence_coefficient(never, suspect, never, images, ATTACK) == 0


def test_a_model_between_them_scores_between_them():
    suspect, never, images = _model(0), _model(1), _images()
    scores = [
        existence_coefficient(_mixed(suspect, never, share), suspect, never, images, ATTACK)
        for share in (0.1, 0.5, 0.95)
    ]
    assert 1 > scores[0] > scores[1] > scores[2]


def test_only_the_channels_that_the_trigger_changes_count():
    suspect = nn.Sequential(nn.Flatten(), nn.Linear(144, 10)).eval()
    repaired, never = copy.deepcopy(suspect), nn.Sequential(nn.Flatten(), nn.Linear(144, 10))
    corner = ATTACK.trigger(torch.zeros(1, 1, 12, 12)).flatten() > 0
    with torch.no_grad():
        suspect[1].weight[3, corner] = 50.0
        repaired[1].weight.copy_(suspect[1].weight)
        repaired[1].weight[[0, 1, 2, 4, 5, 6, 7, 8, 9]] = 0.0
    arguments = (suspect, never, _images(), ATTACK)
    assert existence_coefficient(repaired, *arguments, share=0.1) == pytest.approx(1)
    assert existence_coefficient(repaired, *arguments, share=1.0) < 0.99


def test_token_layers_and_models_in_training_mode_are_left_as_they_were():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Linear(12, 6), nn.Linear(6, 3)

        def forward(self, images):
            return self.head(self.inner(images.flatten(1, 2)).mean(dim=1))

    suspect, never = Tokens().train(), Tokens()
    score = existence_coefficient(suspect, suspect, never, _images(), ATTACK)
    assert score == pytest.approx(1)
    assert suspect.training
    assert not suspect.inner._forward_hooks


@pytest.mark.parametrize("share", [0.0, 1.5, float("nan")])
def test_a_share_out_of_range_is_named(share):
    with pytest.raises(ValueError, match="share") as error:
        existence_coefficient(_model(0), _model(0), _model(1), _images(), ATTACK, share=share)
    assert str(share) in str(error.value)


def test_models_of_other_layers_are_refused():
    other = nn.Sequential(nn.Flatten(), nn.Linear(144, 4))
    with pytest.raises(ValueError, match="clean_model"):
        existence_coefficient(_model(0), _model(0), other, _images(), ATTACK)
    with pytest.raises(ValueError, match="images"):
        existence_coefficient(_model(0), _model(0), _model(1), _images(0), ATTACK)
