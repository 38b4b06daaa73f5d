"""Accuracy of two models on the same samples."""

import pytest
import torch
from torch import nn

from d3fast.training.intervals import difference_interval, paired_difference_interval
from d3fast.training.metrics import evaluate
from d3fast.training.paired import PairedAccuracy, correct_answers, resolved_limit, unresolved


def test_answers_count_as_in_evaluate_and_keep_the_order():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(9, 3)).train()
    data = torch.rand(50, 1, 3, 3), torch.arange(50) % 3
    batches = list(zip(data[0].split(16), data[1].split(16), strict=True))
    found = correct_answers(model, batches)
    assert model.training
    assert int(found.sum()) == evaluate(model, batches, None).correct
    with torch.no_grad():
        assert torch.equal(found, model.eval()(data[0]).argmax(dim=1) == data[1])


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="held_out"):
        correct_answers(nn.Flatten(), [], name="held_out")


def test_the_counts_of_two_models():
    first = torch.tensor([True, True, True, False])
    pair = PairedAccuracy.of(first, torch.tensor([True, False, False, True]))
    assert (pair.before, pair.after, pair.both, pair.samples) == (3, 2, 1, 4)
    assert (pair.lost, pair.gained, pair.drop) == (2, 1, 25.0)


def test_the_interval_is_narrower_than_that_of_independent_samples():
    pair = PairedAccuracy(900, 880, 870, 1000)
    low, high = difference_interval(900, 1000, 880, 1000)
    assert 100 * low < pair.interval[0] < pair.drop < pair.interval[1] < 100 * high


@pytest.mark.parametrize("samples", [10, 65, 100, 400, 1000])
@pytest.mark.parametrize("share", [1.0, 0.9, 0.6])
def test_what_is_unresolved_includes_no_loss_and_one_more_does_not(samples, share):
    correct = round(share * samples)
    count = unresolved(correct, samples)
    for lost, excluded in ((count, False), (count + 1, True)):
        kept = correct - lost
        low, _ = paired_difference_interval(correct, kept, kept, samples)
        assert (low > 0) is excluded


def test_a_model_that_answers_nothing_can_lose_nothing():
    assert unresolved(0, 20) == 0


def test_a_limit_is_kept_where_the_samples_resolve_it_and_raised_where_not():
    assert resolved_limit(1.0, 950, 1000) == 1.0
    assert resolved_limit(1.0, 65, 65) == pytest.approx(100 * 4 / 65)
    assert resolved_limit(10.0, 65, 65) == 10.0
