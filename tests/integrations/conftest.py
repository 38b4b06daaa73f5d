"""A suspect, its clean data, and what trainings of it leave."""

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset


@pytest.fixture
def suspect():
    """A small classifier, trained until it knows the clean data; the same each time."""

    def make():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
            images, labels = samples(1)
            opt = torch.optim.Adam(model.parameters(), lr=0.02)
            for _ in range(60):
                opt.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                opt.step()
        return model

    return make


def samples(seed, count=96):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=g)
    images = torch.randn(count, 8, generator=g) * 0.7
    images[torch.arange(count), labels] += 2
    return images, labels


@pytest.fixture
def clean():
    """Clean samples to repair with, and others to validate on."""
    return TensorDataset(*samples(1)), TensorDataset(*samples(2))


@pytest.fixture
def same_weights():
    """Whether two models are equal bit for bit."""

    def same(first, second):
        a, b = first.state_dict(), second.state_dict()
        return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

    return same


@pytest.fixture
def forget_accelerators():
    """Forgets, when called and after the test, what all accelerators of a process share."""

    def forget():
        from accelerate.state import AcceleratorState, GradientState, PartialState

        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()

    yield forget
    forget()
