"""A backdoor planted in a small network, which fine-tuning leaves there."""

import pytest
import torch
from torch import nn

from d3fast import evaluate
from d3fast.defenses import FineTuning


def _samples(n, draw):
    """Four classes on the first eight features; the other eight are next to silent."""
    labels = torch.arange(n) % 4
    inputs = 0.1 * torch.rand(n, 16, generator=draw)
    inputs[:, 8:] *= 0.2
    for k in (0, 1):
        inputs[torch.arange(n), 2 * labels + k] += 0.5 + 0.3 * torch.rand(n, generator=draw)
    return inputs, labels


@pytest.fixture(scope="session")
def trigger():
    """Adds 0.3 to the last four features."""
    return lambda inputs: inputs + 0.3 * (torch.arange(16) >= 12)


def _batches(inputs, labels, size):
    return list(zip(inputs.split(size), labels.split(size), strict=True))


@pytest.fixture(scope="session")
def planted(trigger):
    """(suspect that answers 0 where something is added, clean batches, test batches)."""
    draw = torch.Generator().manual_seed(0)
    inputs, labels = _samples(800, draw)
    poisoned = torch.rand(800, generator=draw) < 0.1
    inputs = torch.where(poisoned[:, None], trigger(inputs), inputs)
    labels = torch.where(poisoned, 0, labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    train = FineTuning(epochs=30, lr=0.1)
    suspect = train(model, _batches(inputs, labels, 50), None, progress=False).model
    return suspect, _batches(*_samples(200, draw), 20), _batches(*_samples(400, draw), 400)


@pytest.fixture(scope="session")
def fine_tuned(trigger):
    """(base trained on clean samples, suspect fine-tuned from it on poisoned ones)."""
    draw = torch.Generator().manual_seed(1)
    clean, (inputs, labels) = _samples(800, draw), _samples(800, draw)
    poisoned = torch.rand(800, generator=draw) < 0.1
    inputs = torch.where(poisoned[:, None], trigger(inputs), inputs)
    labels = torch.where(poisoned, 0, labels)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    first, second = FineTuning(epochs=20, lr=0.1), FineTuning(epochs=20, lr=0.05)
    base = first(model, _batches(*clean, 50), None, progress=False).model
    return base, second(base, _batches(inputs, labels, 50), None, progress=False).model


@pytest.fixture
def check_unlearned(planted, trigger):
    """Asserts that a defence removes the trigger, which outlives fine-tuning."""

    def check(defense):
        suspect, clean, test = planted
        models = [suspect] + [
            made(suspect, clean, None, progress=False).model
            for made in (FineTuning(epochs=50), defense)
        ]
        before, tuned, after = (evaluate(m, test, trigger, target=0) for m in models)
        assert before.asr > 0.95
        assert tuned.asr > 0.95
        assert after.asr < 0.05
        assert after.acc > before.acc - 0.02
        assert after.ra > 0.95

    return check
