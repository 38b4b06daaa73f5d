"""FST: a new head on the old sphere, pushed off its old direction."""

import pytest
import torch
from torch import nn

from d3fast.defenses.fine_tuning import FineTuning
from d3fast.defenses.fst import FST, ShiftLoss
from d3fast.optim.warm_start import random
from d3fast.runtime.seeding import generator
from tests.defenses.small import small_batches, small_model


def _repair(defense, model, batches=None):
    return defense(model, batches or small_batches(), None, progress=False)


def test_its_defaults_are_those_of_the_paper():
    defense = FST()
    assert (defense.epochs, defense.lr, defense.momentum, defense.weight_decay) == (
        10,
        0.01,
        0.9,
        0.0,
    )
    assert (defense.alpha, defense.schedule) == (0.2, "cosine")
    assert (defense.averaging, defense.distillation) == (0.0, 0.0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_head_keeps_its_norm(weight_decay):
    model = small_model()
    repaired = _repair(FST(epochs=3, lr=0.1, weight_decay=weight_decay), model).model
    torch.testing.assert_close(repaired[3].weight.norm(), model[3].weight.norm())
    assert not torch.allclose(repaired[1].weight.norm(), model[1].weight.norm(), rtol=1e-4)


def test_the_head_starts_anew_weights_on_the_sphere_and_a_small_bias():
    model = small_model()
    head = _repair(FST(epochs=1, lr=0.0), model).model[3]
    assert torch.cosine_similarity(head.weight.flatten(), model[3].weight.flatten(), dim=0) < 0.9
    torch.testing.assert_close(head.weight.norm(), model[3].weight.norm())
    assert not torch.equal(head.bias, model[3].bias)
    assert head.bias.abs().max() <= 6**-0.5


def test_the_seed_draws_the_head():
    first, second = (_repair(FST(epochs=1, lr=0.0, seed=s), small_model()).model[3] for s in (0, 1))
    assert not torch.equal(first.weight, second.weight)
    assert not torch.equal(first.bias, second.bias)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_it_equals_a_loop_written_by_hand(alpha):
    model = small_model()
    defense = FST(epochs=3, lr=0.1, momentum=0.8, weight_decay=0.01, alpha=alpha)
    repaired = _repair(defense, model).model

    head = model[3]
    start = head.weight.detach().clone()
    with torch.no_grad():
        head.weight.copy_(random(start, generator(0, "warm start")))
        drawn = torch.rand(3, generator=generator(0, "head bias"))
        head.bias.copy_((2 * drawn - 1) / 6**0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3)
    model.train()
    for _ in range(3):
        for images, labels in small_batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            head.weight.grad += alpha * start
            optimizer.step()
            with torch.no_grad():
                head.weight *= start.norm() / head.weight.norm()
        schedule.step()
    for (name, ours), theirs in zip(
        repaired.state_dict().items(), model.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)


def test_the_term_is_the_dot_product_and_its_gradient_the_old_weights():
    draw = torch.Generator().manual_seed(0)
    w, start = (torch.randn(3, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    w.requires_grad_(True)
    logits, labels = torch.randn(5, 3, generator=draw, dtype=torch.float64), torch.arange(5) % 3
    value = ShiftLoss([w], [start], 0.7)(logits, labels)
    value.backward()
    expected = nn.functional.cross_entropy(logits, labels) + 0.7 * torch.sum(w * start)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(w.grad, 0.7 * start)


def test_averaging_is_over_the_last_epochs_and_ends_on_the_sphere():
    seen, model = [], small_model()

    def keep(_, trained):
        seen.append({name: p.detach().clone() for name, p in trained.named_parameters()})

    defense = FST(epochs=4, lr=0.1, averaging=0.5, schedule="constant", on_epoch=keep)
    repaired = dict(_repair(defense, model).model.named_parameters())
    mean = {name: (seen[2][name] + seen[3][name]) / 2 for name in seen[0]}
    torch.testing.assert_close(repaired["1.weight"], mean["1.weight"])
    norm = model[3].weight.norm()
    torch.testing.assert_close(repaired["3.weight"].norm(), norm)
    torch.testing.assert_close(
        repaired["3.weight"], mean["3.weight"] * norm / mean["3.weight"].norm()
    )


def test_distillation_replaces_a_share_of_the_labels_and_leaves_the_dot_product_alone():
    """One full-batch step without momentum against the gradient written by hand."""
    model, batch = small_model().eval(), small_batches()[:1]
    ((images, labels),) = batch
    options = {"epochs": 1, "lr": 0.1, "momentum": 0.0, "alpha": 0.3}
    start = _repair(FST(**{**options, "lr": 0.0}), model, batch).model
    ended = _repair(FST(**options, distillation=0.25), model, batch).model
    head = start[3].weight
    with torch.no_grad():
        theirs = model(images).log_softmax(dim=1)
    start.train()
    ours = start(images)
    hard = nn.functional.cross_entropy(ours, labels)
    soft = nn.functional.kl_div(
        ours.log_softmax(dim=1), theirs, reduction="batchmean", log_target=True
    )
    value = 0.75 * hard + 0.25 * soft + 0.3 * (head * model[3].weight.detach()).sum()
    (gradient,) = torch.autograd.grad(value, head)
    moved = head.detach() - 0.1 * gradient
    moved *= model[3].weight.norm() / moved.norm()
    torch.testing.assert_close(ended[3].weight, moved, rtol=1e-4, atol=1e-5)


def test_the_head_ends_further_from_its_old_direction_than_under_fine_tuning():
    model = small_model()
    old = model[3].weight.detach()
    shifted, plain, unpushed = (
        float((_repair(defense, model).model[3].weight.detach() * old).sum())
        for defense in (FST(epochs=30), FineTuning(epochs=30), FST(epochs=30, alpha=0.0))
    )
    assert shifted < unpushed < plain


def test_the_record_says_how_far_the_head_has_gone():
    model = small_model()
    result = _repair(FST(epochs=2), model)
    gone = (result.model[3].weight - model[3].weight).detach().norm()
    assert result.history[-1].distance == pytest.approx(float(gone), rel=1e-4)


def test_a_convolution_can_be_the_head():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 6, 2), nn.ReLU(), nn.Conv2d(6, 3, 1), nn.Flatten())
    repaired = _repair(FST(epochs=2), model).model
    torch.testing.assert_close(repaired[2].weight.norm(), model[2].weight.norm())


def test_a_head_without_bias_stays_without():
    model = small_model()
    model[3].bias = None
    repaired = _repair(FST(epochs=1), model).model
    assert list(repaired.state_dict()) == list(model.state_dict())


def test_a_frozen_head_is_refused():
    model = small_model()
    model[3].requires_grad_(False)
    with pytest.raises(ValueError, match="track='head' selects no trainable parameter"):
        _repair(FST(epochs=1), model)
