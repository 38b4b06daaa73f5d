"""FTSAM is fine-tuning whose gradients are those of the worst point nearby."""

import pytest
import torch
from torch import nn

from d3fast.defenses.fine_tuning import FineTuning
from d3fast.defenses.ft_sam import FTSAM
from d3fast.training.sam import ETA
from tests.defenses.small import small_batches, small_model


def _repair(defense, model, batches):
    return defense(model, batches, None, progress=False).model


def test_its_defaults_are_those_of_the_published_comparisons():
    defense = FTSAM()
    assert (defense.epochs, defense.lr, defense.momentum, defense.weight_decay) == (
        100,
        0.01,
        0.9,
        5e-4,
    )
    assert (defense.rho, defense.adaptive, defense.label_smoothing) == (2.0, True, 0.1)


@pytest.mark.parametrize("adaptive", [False, True], ids=["SAM", "ASAM"])
def test_without_a_perturbation_it_is_plain_fine_tuning_bit_for_bit(adaptive):
    sam = _repair(
        FTSAM(epochs=3, rho=0.0, adaptive=adaptive, label_smoothing=0.0),
        small_model(),
        small_batches(),
    )
    plain = _repair(FineTuning(epochs=3), small_model(), small_batches())
    for (name, ours), theirs in zip(
        sam.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


@pytest.mark.parametrize("adaptive", [False, True], ids=["SAM", "ASAM"])
def test_a_step_is_the_one_written_out_by_hand(adaptive):
    model, (images, labels) = small_model(), small_batches()[0]
    defense = FTSAM(epochs=1, lr=0.1, momentum=0.0, weight_decay=0.01, rho=0.5, adaptive=adaptive)
    repaired = _repair(defense, model, [(images, labels)])

    model.train()
    params = list(model.parameters())

    def gradient():
        loss = nn.functional.cross_entropy(model(images), labels, label_smoothing=0.1)
        return torch.autograd.grad(loss, params)

    scales = [(p.detach().abs() + ETA) if adaptive else torch.ones_like(p) for p in params]
    first = gradient()
    norm = sum((s * g).square().sum() for s, g in zip(scales, first, strict=True)).sqrt()
    shifts = [0.5 * s**2 * g / norm for s, g in zip(scales, first, strict=True)]
    with torch.no_grad():
        for p, shift in zip(params, shifts, strict=True):
            p += shift
    worst = gradient()
    with torch.no_grad():
        for p, shift, g in zip(params, shifts, worst, strict=True):
            p -= shift
            p -= 0.1 * (g + 0.01 * p)
    for ours, theirs in zip(repaired.parameters(), params, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_batch_norm_learns_from_the_unperturbed_passes_alone():
    model = small_model()
    repaired = _repair(FTSAM(epochs=1, lr=0.0), model, small_batches())
    model.train()
    for images, _ in small_batches():
        model(images)
    for ours, theirs in zip(repaired.buffers(), model.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert repaired[2].track_running_stats


def test_the_perturbation_changes_what_is_learned():
    sam, plain = (
        _repair(FTSAM(epochs=1, rho=r), small_model(), small_batches()) for r in (2.0, 0.0)
    )
    assert not torch.equal(sam[3].weight, plain[3].weight)


def test_large_weights_shrink_more_than_under_plain_fine_tuning():
    """What the paper is about: the neuron with the large weights is the one that gives."""
    model = small_model()
    with torch.no_grad():
        model[3].weight[:, 5] *= 20
    sam, plain = (_repair(FTSAM(epochs=30, rho=r), model, small_batches()) for r in (2.0, 0.0))
    assert sam[3].weight[:, 5].norm() < plain[3].weight[:, 5].norm()
