"""NeuralCleanse: a planted pixel is unlearned; where nothing is found nothing is changed."""

import dataclasses
import logging
import math

import pytest
import torch
from torch import nn

from d3fast.audit.anomaly import outliers
from d3fast.audit.inversion import Inversion, InversionOptions
from d3fast.defenses import FineTuning
from d3fast.defenses.neural_cleanse import NeuralCleanse, log_sizes, stamped_gradients
from d3fast.training.metrics import evaluate
from tests.audit.toys import stripe_batches, stripes

PLANTED = 2
DEFENSE = NeuralCleanse(epochs=30, lr=0.3, inversion=InversionOptions(steps=300))


def _patch_of(norm, success=1.0):
    return Inversion(0, torch.zeros(1, 4, 4), torch.zeros(1, 4, 4), norm, success)


def test_sizes_are_compared_as_ratios():
    """Sizes of a model in which only the logarithm tells the target from the natural patches."""
    norms = [6.1, 26.0, 31.0, 38.0, 44.0, 52.0, 71.0]
    assert outliers(norms) == ()
    assert outliers(log_sizes([_patch_of(norm) for norm in norms])) == (0,)


def test_a_patch_that_fails_counts_as_one_that_covers_the_image():
    assert log_sizes([_patch_of(2.0, 0.5)]) == [pytest.approx(math.log(16_000))]
    assert log_sizes([_patch_of(0.0), _patch_of(1e-5)]) == [0.0, 0.0]


def _pixel(images):
    stamped = images.clone()
    stamped[..., -1, -1] = 1.0
    return stamped


def test_it_unlearns_a_planted_pixel_and_keeps_the_accuracy():
    model = stripes(PLANTED)
    before = evaluate(model, stripe_batches(1), _pixel, target=PLANTED)
    assert (before.acc, before.asr) == (1.0, 1.0)
    repaired = DEFENSE(model, stripe_batches(), None, progress=False).model
    after = evaluate(repaired, stripe_batches(1), _pixel, target=PLANTED)
    assert after.acc == 1.0
    assert after.asr == 0.0
    assert after.ra == 1.0


def test_it_is_the_patch_that_removes_it():
    tuned = FineTuning(epochs=DEFENSE.epochs, lr=DEFENSE.lr)
    model = tuned(stripes(PLANTED), stripe_batches(), None, progress=False).model
    assert evaluate(model, stripe_batches(1), _pixel, target=PLANTED).asr == 1.0


def test_the_flagged_class_is_logged(caplog):
    with caplog.at_level(logging.INFO, "d3fast"):
        dataclasses.replace(DEFENSE, epochs=1)(
            stripes(PLANTED), stripe_batches(), None, progress=False
        )
    assert f"Neural Cleanse flags classes [{PLANTED}]" in caplog.text


def test_a_model_without_outliers_comes_back_as_it_was():
    model = stripes()
    seen = []
    defense = dataclasses.replace(DEFENSE, on_epoch=lambda record, _: seen.append(record))
    result = defense(model, stripe_batches(), stripe_batches(1), progress=False)
    assert result.history == ()
    assert seen == []
    assert result.model is not model
    assert torch.equal(result.model[1].weight, model[1].weight)
    assert torch.equal(result.model[1].bias, model[1].bias)


def _patch(target, value):
    return Inversion(target, torch.ones(1, 2, 2), torch.full((1, 2, 2), value), 4.0, 1.0)


class Seen(nn.Module):
    """Scores that depend on one weight; remembers what it was given."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        self.images = images
        return images.flatten(1)[:, :2] * self.weight


def _stamp(patches, share, count, seed=0):
    model = Seen()
    images, labels = torch.zeros(count, 1, 2, 2), torch.arange(count) % 2
    gradients = stamped_gradients(patches, share, torch.Generator().manual_seed(seed))
    _, answered, _ = gradients(model, images, labels, nn.CrossEntropyLoss())
    assert not images.any()
    assert torch.equal(answered, labels)
    assert model.weight.grad is not None
    return model.images[:, 0, 0, 0]


@pytest.mark.parametrize(
    ("share", "count", "stamped"),
    [(0.2, 10, 2), (0.2, 32, 6), (1.0, 7, 7), (0.2, 1, 1), (0.01, 5, 1)],
)
def test_a_share_of_every_batch_is_stamped_and_at_least_one_image(share, count, stamped):
    assert int((_stamp([_patch(0, 1.0)], share, count) == 1).sum()) == stamped


def test_every_flagged_class_has_its_part():
    values = _stamp([_patch(0, 0.5), _patch(1, 1.0)], 0.5, 200)
    counts = [int((values == v).sum()) for v in (0.5, 1.0)]
    assert sum(counts) == 100
    assert min(counts) > 30


def test_other_images_are_stamped_in_every_batch():
    model, images, labels = Seen(), torch.zeros(50, 1, 2, 2), torch.zeros(50, dtype=torch.long)
    gradients = stamped_gradients([_patch(0, 1.0)], 0.2, torch.Generator().manual_seed(0))
    seen = []
    for _ in range(2):
        gradients(model, images, labels, nn.CrossEntropyLoss())
        seen.append(model.images)
    assert not torch.equal(*seen)


def test_its_defaults_are_the_published_ones():
    defense = NeuralCleanse()
    assert (defense.epochs, defense.lr, defense.momentum, defense.weight_decay) == (
        100,
        0.01,
        0.9,
        5e-4,
    )
    assert (defense.stamped, defense.threshold, defense.inversion.success) == (0.2, 2.0, 0.99)
    assert (defense.inversion.steps, defense.inversion.factor) == (1500, 2.0)
    assert (defense.inversion.lr, defense.inversion.betas) == (0.1, (0.5, 0.9))


def test_inputs_that_are_no_images_are_refused():
    loader = [(torch.rand(6, 4), torch.arange(6) % 3)]
    with pytest.raises(ValueError, match=r"clean_loader must yield float images \(N, C, H, W\)"):
        NeuralCleanse()(nn.Linear(4, 3), loader, None, progress=False)
