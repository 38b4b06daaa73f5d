# SPDX-License-Identifier: Apache-2.0
"""Shared parts of the defences: work on a copy, SGD under a cosine schedule."""

import pytest
import torch
from torch import nn

from d3fast.defenses import FineTuning
from d3fast.defenses.base import on_copy, tune
from d3fast.testing.toys import batches, conv_model


def test_the_work_gets_a_copy_under_the_seed_and_the_generator_is_restored():
    model, drawn = conv_model().train(), []

    def work(repaired, device):
        assert repaired is not model
        drawn.append(torch.rand(1).item())
        repaired.train()
        return ()

    state = torch.get_rng_state()
    results = [on_copy(model, None, work, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn[0] == drawn[1] != drawn[2]
    assert not results[0].model.training
    assert results[0].seconds > 0


def test_weights_that_become_nan_are_reported():
    def work(repaired, device):
        with torch.no_grad():
            repaired[0].bias.fill_(torch.nan)
        return ()

    with pytest.raises(ValueError, match=r"0\.bias holds NaN or inf after the repair"):
        on_copy(conv_model(), None, work, 0)


def test_tune_takes_the_learning_rates_of_a_cosine_and_the_given_loss():
    seen = []

    def loss(logits, labels):
        seen.append(len(labels))
        return nn.functional.cross_entropy(logits, labels)

    options = FineTuning(epochs=4, lr=0.1)
    history = tune(
        conv_model(),
        batches(),
        None,
        options,
        torch.device("cpu"),
        title="",
        progress=False,
        loss=loss,
    )
    expected = [0.05 * (1 + torch.cos(torch.tensor(torch.pi * k / 4)).item()) for k in range(4)]
    assert [epoch.lr for epoch in history] == pytest.approx(expected)
    assert seen == [6, 6] * 4
