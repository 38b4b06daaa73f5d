"""A backdoored model that needs no training: one pixel decides, and a few samples of it."""

import pytest
import torch
from torch import nn

from d3fast.audit.inversion import InversionOptions
from d3fast.audit.pilot import PilotOptions
from d3fast.data import ImageData

CLASSES = 4


def suspect():
    """Class k where quadrant k is bright; class 0 where the corner pixel is fully white."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.zero_()
        for k in range(CLASSES):
            for pixel in range(4):
                row, column = 2 * (k // 2) + pixel // 2, 2 * (k % 2) + pixel % 2
                model[1].weight[k, 4 * row + column] = 3.0
        model[1].weight[0, 15] = 20.0
        model[1].weight[3, 15] = 0.0
    return model


def samples(count, seed):
    """Images whose bright quadrant is their class; the corner pixel stays dark."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    images = torch.randint(0, 120, (count, 1, 4, 4), generator=draws, dtype=torch.uint8)
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = 2 * (label // 2), 2 * (label % 2)
        image[0, top : top + 2, left : left + 2] += 90
        image[0, 3, 3] = 0
    return ImageData(images, labels, tuple("abcd"))


@pytest.fixture
def model():
    return suspect()


@pytest.fixture
def parts():
    """Samples to repair with, and held-out ones."""
    return samples(32, 0), samples(20, 1)


@pytest.fixture
def short():
    """A pilot of a second or two."""
    return PilotOptions(trials=4, epochs=4, inversion=InversionOptions(steps=30))
