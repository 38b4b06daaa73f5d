"""Low frequency: smoothing by hand, bounds, and the two objectives."""

import copy

import numpy as np
import pytest
import torch
from scipy.fft import dctn
from torch import nn
from torch.nn import functional

from d3fast.attacks.low_frequency import LowFrequency, smoothing_matrix
from d3fast.data import ImageData, as_float


def _data(count=64, channels=1, side=8, dtype=torch.uint8, classes=4):
    """Noise; class k has a bright k-th row."""
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(60, 120, (count, channels, side, side), generator=rng)
    labels = torch.arange(count) % classes
    images[torch.arange(count), :, labels] += 100
    images = images.to(torch.uint8)
    images = images if dtype == torch.uint8 else as_float(images)
    return ImageData(images, labels, tuple("abcdefgh"[:classes]))


def _model(channels=1, side=8, classes=4, seed=0):
    """Linear, so that a few steps reach far."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, classes))


def _learned(target=1, seed=0, data=None, model=None, **options):
    attack = LowFrequency(target, **{"steps": 20, "batch_size": 16, **options})
    attack.learn(data or _data(), model=model or _model(), seed=seed, progress=False)
    return attack


def _with(pattern, **options):
    attack = LowFrequency(1, **options)
    attack.load_state_dict({"pattern": pattern})
    return attack


def test_the_smoothing_weights_are_a_gaussian_by_hand():
    near, far = np.exp(-0.5), np.exp(-2.0)  # at distances 1 and 2, sigma 1
    expected = torch.tensor(
        [
            [1 / (1 + near + far), near / (1 + near + far), far / (1 + near + far)],
            [near / (1 + 2 * near), 1 / (1 + 2 * near), near / (1 + 2 * near)],
        ],
        dtype=torch.float32,
    )
    torch.testing.assert_close(smoothing_matrix(3, 1.0)[:2], expected)


@pytest.mark.parametrize(("size", "sigma"), [(1, 1.0), (8, 0.08), (8, 0.8), (28, 40.0)])
def test_smoothing_keeps_a_constant_and_lets_no_weight_get_lost(size, sigma):
    weights = smoothing_matrix(size, sigma)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(size))
    torch.testing.assert_close(weights @ torch.full((size, 3), 0.7), torch.full((size, 3), 0.7))


def test_the_pattern_is_added_and_cut_to_the_range_of_images():
    attack = _with(torch.tensor([[[0.25, -0.25]]]), limit=0.25)
    stamped = attack.trigger(torch.tensor([[[[0.5, 0.5]]], [[[0.9, 0.1]]]]))
    assert stamped.flatten().tolist() == [0.75, 0.25, 1.0, 0.0]


@pytest.mark.parametrize("objective", ["quiet", "targeted"])
@pytest.mark.parametrize(("limit", "energy"), [(0.2, 0.5), (0.05, 0.9)])
def test_the_pattern_stays_within_the_limit_and_has_no_mean(objective, limit, energy):
    pattern = _learned(objective=objective, limit=limit, energy=energy).state_dict()["pattern"]
    assert pattern.shape == (1, 8, 8)
    assert pattern.abs().max() <= limit
    assert pattern.abs().max() > limit / 2
    assert pattern.mean().abs() < limit / 10
    assert pattern.square().mean().sqrt() > 0.8 * energy * limit  # cutting takes a little


def _share_of_high_frequencies(pattern):
    """The share of the energy above half the highest frequency, in cosines: they see no edge."""
    power = dctn(pattern.numpy(), axes=(1, 2), norm="ortho") ** 2
    half = pattern.shape[-1] // 2
    return float(1 - power[:, :half, :half].sum() / power.sum())


@pytest.mark.parametrize("objective", ["quiet", "targeted"])
def test_less_than_a_hundredth_of_the_energy_is_at_high_frequencies(objective):
    data = _data(side=28)
    model = _model(side=28)
    smooth = _learned(data=data, model=model, objective=objective)
    rough = _learned(data=data, model=model, objective=objective, sigma=0.01)  # no filter at all
    shares = [_share_of_high_frequencies(a.state_dict()["pattern"]) for a in (smooth, rough)]
    assert shares[0] < 0.01
    assert shares[1] > 0.2


def _loss(model, images, labels):
    with torch.no_grad():
        return float(functional.cross_entropy(model(images), labels))


def test_the_quiet_pattern_costs_a_clean_model_less_and_the_targeted_one_pulls_to_the_target():
    data, model = _data(), _model()
    images = as_float(data.images)
    quiet, targeted = (_learned(model=model, objective=o) for o in ("quiet", "targeted"))
    to_target = [
        _loss(model, a.trigger(images), torch.ones_like(data.labels)) for a in (quiet, targeted)
    ]
    to_truth = [_loss(model, a.trigger(images), data.labels) for a in (quiet, targeted)]
    assert to_truth[0] < to_truth[1]
    assert to_target[1] < to_target[0]
    assert to_target[1] < _loss(model, images, torch.ones_like(data.labels))


def test_learning_draws_nothing_from_torchs_own_generator_and_leaves_data_and_model_alone():
    data, model = _data(), _model().train()
    images, weights = data.images.clone(), copy.deepcopy(model.state_dict())
    before = torch.get_rng_state()
    _learned(data=data, model=model)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(data.images, images)
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_a_pattern_above_the_limit_is_refused_and_changes_nothing():
    attack = _learned()
    before = attack.state_dict()["pattern"]
    with pytest.raises(ValueError, match=r"pattern must be within limit=0\.2, got 0\.3"):
        attack.load_state_dict({"pattern": torch.full((1, 8, 8), 0.3)})
    assert attack.state_dict()["pattern"] is before


def test_data_it_cannot_learn_from_is_refused():
    with pytest.raises(ValueError, match=r"target must be in 0\.\.3, got 4"):
        LowFrequency(4).learn(_data(), progress=False)
    data = _data()
    only = data.subset((data.labels == 1).nonzero().flatten())
    with pytest.raises(ValueError, match="every image has the target class 1: nothing to attack"):
        LowFrequency(1).learn(only, progress=False)
