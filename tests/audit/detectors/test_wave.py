"""Differential waves on models that a sine wave moves, with repairs that share this or not."""

import math

import pytest
import torch
from torch import nn

from d3fast.audit.detectors import wave
from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.differential import repairs_of
from d3fast.audit.detectors.scores import outlier_score
from d3fast.audit.detectors.wave import DifferentialWave, unit_waves
from d3fast.testing.toys import Templates, template_samples

SHORT = DifferentialWave(epochs=1)


class Wave(nn.Module):
    """``Templates``, but a wave of two periods across moves it toward class 6."""

    def __init__(self, strength=60.0):
        super().__init__()
        self.own = Templates(False)
        self.strength = strength

    def forward(self, images):
        width = images.shape[-1]
        wave = (2 * math.pi * 2 * torch.arange(width) / width).sin()
        amount = (images.mean(dim=(1, 2)) * wave).mean(dim=1).clamp(min=0)
        return self.own(images) + self.strength * amount[:, None] * torch.eye(10)[6]


@pytest.fixture
def statistics(monkeypatch):
    def measure(model, *repairs, **options):
        frozen = [repair.eval().requires_grad_(False) for repair in repairs]
        monkeypatch.setattr(wave, "repairs_of", lambda *_: frozen)
        data = template_samples()
        context = InspectionContext(model, data.images, data.labels, 10, 0)
        return DifferentialWave(epochs=1, repairs=len(repairs), **options)(context)

    return measure


def test_a_wave_that_the_repair_removed_stands_out(statistics):
    found = statistics(Wave(), Templates(False))
    value, target = outlier_score(found, SHORT.spread)
    assert target == 6
    assert value > 6
    assert found[6] > 0.5


def test_a_wave_that_the_repair_shares_cancels(statistics):
    assert statistics(Wave(), Wave()) == pytest.approx([0.0] * 10, abs=1e-6)


def test_repairs_are_averaged(statistics):
    one, none, half = (
        statistics(Wave(), *repairs)[6]
        for repairs in ([Templates(False)], [Wave()], [Templates(False), Wave()])
    )
    assert half == pytest.approx((one + none) / 2, abs=1e-6)


def test_repairs_are_not_the_same():
    data = template_samples()
    context = InspectionContext(
        nn.Sequential(nn.Flatten(), nn.Linear(data.images[0].numel(), 10)).eval(),
        data.images,
        data.labels,
        10,
        1,
    )
    first, second = (repair[1].weight for repair in repairs_of(context, 2, 1))
    assert not torch.equal(first, second)


def test_a_wave_above_the_highest_number_of_periods_is_not_tried(statistics):
    assert max(statistics(Wave(), Templates(False), highest=1)) < 0.5


@pytest.mark.parametrize(("height", "width"), [(8, 6), (7, 8), (5, 5)])
def test_waves_are_a_basis_of_all_images_without_a_mean(height, width):
    waves = unit_waves(height, width, 9).flatten(1)
    assert len(waves) == height * width - 1
    products = waves @ waves.T / (height * width)
    torch.testing.assert_close(products, torch.eye(len(waves)), atol=1e-4, rtol=0)
    torch.testing.assert_close(waves.mean(dim=1), torch.zeros(len(waves)), atol=1e-5, rtol=0)


def test_only_searched_classes_have_statistics(monkeypatch):
    monkeypatch.setattr(wave, "repairs_of", lambda *_: [Templates(False)])
    data = template_samples()
    context = InspectionContext(Wave(), data.images, data.labels, 10, 0, sample=(6, 2))
    found = SHORT(context)
    assert len(found) == 2
    assert found[0] > found[1]


@pytest.mark.parametrize("options", [{"sizes": ()}, {"sizes": (-1.0,)}, {"kept": 0}])
def test_a_number_out_of_range_is_refused(options):
    with pytest.raises(ValueError, match=r"must be"):
        DifferentialWave(**options)
