"""BTI-DBF: the mask keeps what classes need, the generator moves the rest, unlearning uses both."""

import pytest
import torch
from torch import nn

from d3fast.defenses.bti_dbf import (
    BTIDBF,
    InversionByFeatures,
    Inverting,
    Trigger,
    benign_mask,
    both_gradients,
    invert,
)
from d3fast.training.modes import frozen

SIDE = 8
PLANTED = 4  # the channel that the corner pixel drives
CPU = torch.device("cpu")


def _loader(seed=0, count=48):
    """Images of class k of 2 have a bright row k; the corner is dark."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    images = 0.1 * torch.rand(count, 1, SIDE, SIDE, generator=draw)
    images[torch.arange(count), 0, labels] += 0.6
    images[..., -1, -1] = 0.0
    return list(zip(images.split(16), labels.split(16), strict=True))


def _model():
    """Channels 0 to 3 see the rows of the classes; channel 4 sees the corner and votes for 0."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 5), nn.ReLU(), nn.Linear(5, 2))
    with torch.no_grad():
        weight = torch.zeros(5, SIDE, SIDE)
        for channel in range(4):
            weight[channel, channel % 2] = 1.0
        weight[PLANTED, -1, -1] = 10.0
        model[1].weight.copy_(weight.flatten(1))
        model[1].bias.zero_()
        model[3].weight.zero_()
        for channel in range(4):
            model[3].weight[channel % 2, channel] = 1.0
        model[3].weight[0, PLANTED] = 5.0
        model[3].bias.zero_()
    return model


def test_the_mask_keeps_the_channels_that_the_classes_need():
    model = _model()
    options = InversionByFeatures(mask_steps=300, mask_lr=0.05)
    with frozen(model), torch.enable_grad():
        mask = benign_mask(model, model[3], _loader(), options)
    assert mask.shape == (5,)
    assert bool(((mask >= 0) & (mask <= 1)).all())
    assert mask[:4].min() > 0.8
    assert mask[PLANTED] == pytest.approx(0.5)  # silent on clean images: no gradient


def test_the_generator_finds_what_moves_the_other_channels():
    model, loader = _model(), _loader()
    options = InversionByFeatures(mask_steps=300, mask_lr=0.05, steps=200, lr=1e-2, bound=0.2)
    inverting = Inverting(model, loader, options, 10, CPU, 0)
    images = loader[0][0]
    before = model[2](model[1](images.flatten(1)))
    next(iter(inverting))
    after = model[2](model[1](inverting.triggered(images).flatten(1)))
    moved = (after - before).abs().mean(dim=0)
    assert moved[PLANTED] > 3
    assert (model(inverting.triggered(images)).argmax(1) == 0).float().mean() > 0.9


@pytest.mark.parametrize("bound", [0.0, 0.05, 0.3])
def test_a_trigger_stays_within_its_bound_and_among_the_pixels(bound):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trigger = Trigger(3, bound)
    images = torch.rand(5, 3, 9, 8)
    found = trigger(images)
    assert found.shape == images.shape
    assert 0 <= found.min() <= found.max() <= 1
    assert (found - images).square().flatten(1).mean(dim=1).sqrt().max() <= bound + 1e-6


def test_inversion_leaves_the_model_alone():
    model, before = _model(), _model()
    with frozen(model), torch.enable_grad():
        invert(model, model[3], Trigger(1, 0.2), torch.ones(5), _loader(), InversionByFeatures())
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)
    )
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("every", "expected"), [(1, 4), (2, 2), (3, 2), (10, 1)])
def test_it_inverts_before_every_so_many_passes(monkeypatch, every, expected):
    calls = []
    monkeypatch.setattr("d3fast.defenses.bti_dbf.invert", lambda *_: calls.append(1))
    short = InversionByFeatures(mask_steps=1, steps=1)
    BTIDBF(epochs=4, every=every, inversion=short)(_model(), _loader(), None, progress=False)
    assert len(calls) == expected


class Seen(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, images):
        self.images = images
        return images.flatten(1)[:, :2] * self.weight


@pytest.mark.parametrize(("share", "extra"), [(1.0, 8), (0.25, 2), (0.01, 1)])
def test_triggered_copies_keep_their_labels_and_join_the_batch(share, extra):
    model, images, labels = Seen(), torch.zeros(8, 1, 2, 2), torch.arange(8) % 2
    gradients = both_gradients(lambda x: x + 1, share)
    logits, answered, value = gradients(model, images, labels, nn.CrossEntropyLoss())
    assert logits.shape == (8, 2)
    assert torch.equal(answered, labels)
    assert model.images.shape[0] == 8 + extra
    assert (model.images[8:] == 1).all()
    expected = nn.functional.cross_entropy(
        model.images.flatten(1)[:, :2], torch.cat([labels, labels[:extra]])
    )
    torch.testing.assert_close(value.detach(), expected)


def test_images_that_are_too_small_or_no_images_are_refused():
    with pytest.raises(ValueError, match=r"at least 4 pixels a side, got shape \(16, 1, 2, 2\)"):
        Inverting(_model(), [(torch.rand(16, 1, 2, 2), torch.zeros(16).long())], *_rest())
    with pytest.raises(ValueError, match=r"images \(N, C, H, W\) .* got shape \(16, 5\)"):
        Inverting(_model(), [(torch.rand(16, 5), torch.zeros(16).long())], *_rest())


def test_a_head_that_is_no_linear_layer_is_refused():
    model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten())
    with pytest.raises(ValueError, match="head must be a linear layer, got Conv2d"):
        Inverting(model, _loader(), *_rest())


def _rest():
    return InversionByFeatures(), 1, CPU, 0


@pytest.mark.parametrize(
    ("option", "value"), [("mask_steps", 0), ("steps", 0), ("lr", -1.0), ("bound", -0.1)]
)
def test_an_invalid_option_of_the_inversion_is_named(option, value):
    with pytest.raises(ValueError, match=rf"^{option} must be .* got {value}"):
        InversionByFeatures(**{option: value})
