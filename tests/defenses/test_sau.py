"""SAU: its examples fool within their ball, its risk is the formula's, and a trigger is cured."""

import copy
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from d3fast.defenses.sau import (
    SAU,
    crafting_objective,
    jensen_shannon,
    shared_examples,
    shared_risk,
)
from d3fast.runtime.seeding import generator


def _moved(suspect):
    """A model that has moved away from the suspect a little."""
    model = copy.deepcopy(suspect)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for param in model.parameters():
            param += 0.05 * torch.randn(param.shape, generator=draw)
    return model.eval()


@pytest.mark.parametrize("step_size", [0.05, 0.2])
def test_examples_stay_in_the_ball_and_among_the_pixels_and_raise_the_objective(planted, step_size):
    suspect, clean, _ = planted
    model, (inputs, labels) = _moved(suspect), clean[0]
    options = SAU(step_size=step_size)
    draw = torch.Generator().manual_seed(0)
    found = shared_examples(model, suspect, inputs, labels, options, draw)
    assert (found - inputs).abs().max() <= 0.2 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    before, after = (
        crafting_objective(model(x), suspect(x), labels, options).mean() for x in (inputs, found)
    )
    assert after > before
    assert cross_entropy(model(found), labels) > cross_entropy(model(inputs), labels)


def test_crafting_leaves_no_gradient_in_any_weight(planted):
    suspect, clean, _ = planted
    model = _moved(suspect)
    shared_examples(model, suspect, *clean[0], SAU(), torch.Generator().manual_seed(0))
    assert all(p.grad is None for p in (*model.parameters(), *suspect.parameters()))


def test_inputs_without_bounds_are_not_clipped(planted):
    suspect, clean, _ = planted
    inputs, labels = clean[0][0] - 5, clean[0][1]
    options = SAU(pixel_range=None)
    draw = torch.Generator().manual_seed(0)
    found = shared_examples(suspect, suspect, inputs, labels, options, draw)
    assert (found - inputs).abs().max() <= 0.2 + 1e-6
    assert found.max() < 0


def test_the_crafting_objective_by_hand():
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
    labels = torch.tensor([0])
    # The middle is (1/2, 1/2) and both divergences from it are log 2 less the entropy.
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    divergence = math.log(2) - entropy
    fooled = -(math.log(0.75) + math.log(0.25)) / 2
    options = SAU(adversarial_weight=0.5, agreement_weight=2.0)
    assert jensen_shannon(p.log(), q.log()).item() == pytest.approx(divergence, rel=1e-5)
    assert crafting_objective(p.log(), q.log(), labels, options).item() == pytest.approx(
        0.5 * fooled - 2.0 * divergence, rel=1e-5
    )


def test_the_shared_risk_by_hand():
    probabilities = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])
    answers, labels = torch.tensor([2, 0, 1]), torch.tensor([0, 0, 0])
    wanted = (-math.log(0.3) + 0 - math.log(0.7)) / 3
    assert shared_risk(probabilities.log(), answers, labels).item() == pytest.approx(wanted)


def test_the_shared_risk_of_a_sure_model_is_finite_and_so_is_its_gradient():
    logits = torch.tensor([[0.0, 500.0]], requires_grad=True)
    risk = shared_risk(logits, torch.tensor([1]), torch.tensor([0]))
    risk.backward()
    assert risk.item() == 500
    assert logits.grad.tolist() == [[-1.0, 1.0]]


def test_one_step_is_adam_on_the_sum_of_both_risks(planted):
    suspect, clean, _ = planted
    (inputs, labels) = clean[0]
    options = SAU(epochs=1, lr=0.01, clean_weight=0.5, shared_weight=2.0)
    result = options(suspect, [(inputs, labels)], None, progress=False)

    model = copy.deepcopy(suspect)
    found = shared_examples(model, suspect, inputs, labels, options, generator(0, "sau"))
    answers = suspect(found).argmax(dim=1)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    logits, fooled = model.train()(torch.cat([inputs, found])).chunk(2)
    loss = 0.5 * cross_entropy(logits, labels) + 2.0 * shared_risk(fooled, answers, labels)
    loss.backward()
    optimizer.step()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(result.model.state_dict()[name], tensor, msg=name)
    assert result.history[0].loss == pytest.approx(loss.item(), rel=1e-5)


def test_a_planted_trigger_that_outlives_fine_tuning_is_unlearned(check_unlearned):
    check_unlearned(SAU(epochs=20, lr=5e-3))


def test_the_seed_decides_where_the_ascents_start(planted):
    suspect, clean, _ = planted
    first, again, other = (
        SAU(epochs=1, step_size=0.01, seed=seed)(suspect, clean, None, progress=False).model
        for seed in (0, 0, 1)
    )
    assert torch.equal(first[3].weight, again[3].weight)
    assert not torch.equal(first[3].weight, other[3].weight)


def test_the_learning_rate_falls_to_0_by_a_cosine(planted):
    suspect, clean, _ = planted
    history = SAU(epochs=4, lr=0.1)(suspect, clean[:1], None, progress=False).history
    expected = [0.05 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    assert [record.lr for record in history] == pytest.approx(expected)


def test_its_defaults_are_the_published_ones():
    d = SAU()
    assert (d.epochs, d.lr, d.radius, d.steps, d.step_size) == (100, 1e-4, 0.2, 5, 0.2)
    weights = (d.clean_weight, d.shared_weight, d.adversarial_weight, d.agreement_weight)
    assert weights == (1.0, 1.0, 0.01, 1.0)


def test_the_pixel_range_must_be_ordered():
    with pytest.raises(ValueError, match=r"pixel_range's upper bound .* >= 1, got 0\.0"):
        SAU(pixel_range=(1.0, 0.0))
