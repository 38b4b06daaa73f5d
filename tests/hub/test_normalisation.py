# SPDX-License-Identifier: Apache-2.0
"""Wrong normalisation and wrong labels are found; right ones raise no alarm."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from d3fast.data import ImageData
from d3fast.hub import Classifier, ImageInput, Suspect
from d3fast.hub.normalisation import InputCheck, check_inputs, far_better
from d3fast.hub.samples import CleanSamples

CLASSES = 5
NOTHING = InputCheck(None, None)
NAMES = tuple("abcde")


class Brightness(nn.Module):
    """Answers the class whose brightness is nearest, in normalised units of its training."""

    def __init__(self, mean, std, sharpness=200.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(sharpness))
        centres = (torch.arange(CLASSES) + 0.5) / CLASSES
        self.register_buffer("centres", (centres - mean) / std)

    def forward(self, images):
        return -self.scale * (images.mean((1, 2, 3))[:, None] - self.centres) ** 2


def suspect(made_for=(0.5, 0.5), given=(0.5, 0.5), channels=1, **options):
    mean, std = ((value,) * channels for value in given)
    model = Classifier(Brightness(*made_for, **options), mean, std).eval()
    image = ImageInput(channels, (4, 4), mean=mean, std=std)
    return Suspect(model, "m", "m", "m", image, None, (), "0" * 64, (), None)


def samples(count=100, noise=0.0, order=None, channels=1, labelled=True):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % CLASSES
    level = (labels + 0.5) / CLASSES + noise * torch.randn(count, generator=generator)
    images = level.clamp(0, 1)[:, None, None, None].expand(count, channels, 4, 4).contiguous()
    named = labels if order is None else torch.tensor(order)[labels]
    return CleanSamples(ImageData(images, named, NAMES), labelled, ())


@pytest.mark.parametrize("noise", [0.0, 0.05, 0.1])
def test_a_model_with_its_own_normalisation_is_accepted(noise):
    assert check_inputs(suspect(), samples(noise=noise)) == NOTHING


@pytest.mark.parametrize(
    ("made_for", "name", "advice"),
    [
        ((0.0, 1.0), "none", "--mean 0 --std 1"),
        ((0.2860, 0.3530), "Fashion-MNIST", "--mean 0.286 --std 0.353"),
        ((0.0, 1 / 255), "0 to 255", "--mean 0 --std 0.003922"),
    ],
)
def test_a_normalisation_that_gives_far_better_answers_is_named(made_for, name, advice):
    found = check_inputs(suspect(made_for), samples()).error
    assert "the normalisation looks wrong" in found
    assert f"100.0 % with that of {name}: give {advice}" in found


def test_three_channels_get_three_numbers():
    found = check_inputs(suspect((0.0, 1.0), channels=3), samples(channels=3)).error
    assert "--mean 0,0,0 --std 1,1,1" in found


def test_a_handful_of_samples_proves_nothing():
    assert check_inputs(suspect((0.0, 1.0), sharpness=0.1), samples(count=5)) == NOTHING


def test_classes_in_another_order_are_named():
    found = check_inputs(suspect(), samples(order=[1, 0, 2, 3, 4])).error
    assert "the order of the classes looks wrong: 60.0 %" in found
    assert "100.0 % after renumbering; the model answers 'b' as 'a', 'a' as 'b':" in found
    assert "--classes" in found


def test_labels_at_random_are_not_taken_for_another_order():
    data = samples(count=1000)
    labels = torch.randint(CLASSES, (1000,), generator=torch.Generator().manual_seed(0))
    mixed = replace(data, data=replace(data.data, labels=labels))
    found = check_inputs(suspect(), mixed)
    assert found.error is None
    assert "the model is sure and wrong" in found.note


def test_an_unsure_model_with_a_low_accuracy_is_accepted():
    assert check_inputs(suspect(sharpness=1.0), samples(noise=0.5)) == NOTHING


@pytest.mark.parametrize("given", [(123.7, 58.4), (-0.5, 0.5), (0.5, 2.0)])
def test_a_normalisation_that_images_cannot_have_is_refused_without_labels(given):
    found = check_inputs(suspect(given=given), samples(labelled=False)).error
    assert "divide numbers of 0 to 255 by 255" in found


def test_without_labels_nothing_else_is_said():
    assert check_inputs(suspect((0.0, 1.0)), samples(labelled=False)) == NOTHING


def test_modes_and_weights_stay_as_they_were():
    model = suspect((0.0, 1.0))
    model.model.train()
    check_inputs(model, samples())
    assert model.model.training
    assert model.model.mean == (0.5,)


@pytest.mark.parametrize(
    ("right", "total", "better"),
    [(100, 100, True), (60, 100, False), (75, 100, True), (74, 100, False)],
)
def test_far_better_means_certain_and_half_of_the_errors(right, total, better):
    now, other = (torch.arange(total) < count for count in (50, right))
    assert far_better(now, other) == better


def test_few_samples_are_never_certain():
    assert not far_better(torch.zeros(9, dtype=torch.bool), torch.ones(9, dtype=torch.bool))
