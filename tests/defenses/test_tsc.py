"""TSC: the curve, its gradient, its point; a planted backdoor that outlives fine-tuning."""

import copy

import pytest
import torch
from torch import nn

from d3fast import evaluate
from d3fast.defenses import TSC, FineTuning
from d3fast.defenses.tsc import along_curve, bezier, measure_batch_norm, trainable
from d3fast.testing.toys import batches, conv_model
from tests.defenses.small import small_batches, small_model


def test_the_gradient_is_that_of_the_control_point():
    first, control, last = (small_model() for _ in range(3))
    for one, scale in ((first, 0.5), (last, 2.0)):
        for p in one.parameters():
            p.data *= scale
    images, labels = small_batches()[0]
    loss = nn.CrossEntropyLoss()
    ends = [[p.detach() for p in trainable(one)] for one in (first, last)]
    draws = torch.Generator().manual_seed(3)
    gradients = along_curve(ends[0], ends[1], draws)
    before = copy.deepcopy(control.state_dict())
    gradients(control, images, labels, loss)
    t = float(torch.rand((), generator=torch.Generator().manual_seed(3)))
    names = [name for name, _ in control.named_parameters()]
    free = [p.detach().clone().requires_grad_() for p in control.parameters()]
    point = dict(zip(names, bezier(ends[0], free, ends[1], t), strict=True))
    with torch.enable_grad():
        mixed = {
            name: (1 - t) ** 2 * a + 2 * t * (1 - t) * c + t**2 * b
            for name, a, c, b in zip(names, ends[0], free, ends[1], strict=True)
        }
        loss(torch.func.functional_call(control, mixed, images), labels).backward()
    assert all(torch.equal(point[name], mixed[name].detach()) for name in names)
    for p, expected in zip(control.parameters(), free, strict=True):
        torch.testing.assert_close(p.grad, expected.grad)
    for name, p in control.named_parameters():
        assert torch.equal(p, before[name])


def test_statistics_of_batch_norm_are_means_over_the_batches():
    model, batches = small_model(), small_batches()
    hidden = [model[1](model[0](images)) for images, _ in batches]
    measure_batch_norm(model, batches, torch.device("cpu"))
    expected = torch.stack([one.mean(0) for one in hidden]).mean(0)
    torch.testing.assert_close(model[2].running_mean, expected)
    assert model[2].momentum == 0.1
    assert not any(m.training for m in model.modules())


def test_at_either_end_the_repair_is_the_suspect_up_to_its_permutation_and_statistics():
    suspect = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    images, _ = batches()[0]
    for point in (0.0, 1.0):
        options = {"epochs": 1, "rounds": 2, "point": point}
        repaired = TSC(**options)(suspect, batches(), None, progress=False).model
        torch.testing.assert_close(repaired(images), suspect(images), rtol=1e-4, atol=1e-5)


def test_a_planted_trigger_that_outlives_fine_tuning_is_removed(planted, trigger):
    suspect, clean, test = planted
    tuned, after = (
        evaluate(made(suspect, clean, None, progress=False).model, test, trigger, target=0)
        for made in (FineTuning(epochs=50), TSC(epochs=20, lr=0.1))
    )
    assert tuned.asr > 0.95
    assert after.asr < 0.5
    assert after.acc > 0.95


def test_a_clean_model_keeps_its_accuracy(fine_tuned, planted):
    (clean_model, _), (_, clean, test) = fine_tuned, planted
    before = evaluate(clean_model, test, None).acc
    repaired = TSC(epochs=10, lr=0.1, rounds=1)(clean_model, clean, None, progress=False).model
    assert evaluate(repaired, test, None).acc > before - 0.02


def test_a_model_that_cannot_be_permuted_is_refused():
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ValueError, match="has no hidden channels that can be permuted"):
        TSC(epochs=1)(linear, batches(), None, progress=False)


def test_epochs_are_numbered_over_all_curves():
    history = TSC(epochs=2, rounds=2)(conv_model(), batches(), None, progress=False).history
    assert [record.epoch for record in history] == list(range(1, 9))


def test_its_defaults():
    defense = TSC()
    assert (defense.epochs, defense.lr, defense.rounds, defense.point) == (200, 0.02, 3, 0.4)
