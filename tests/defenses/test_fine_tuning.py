"""FineTuning is a plain torch loop."""

import torch
from torch import nn

from d3fast.defenses import FineTuning
from tests.defenses.small import small_batches, small_model


def test_it_equals_a_loop_written_by_hand():
    model = small_model()
    defense = FineTuning(epochs=4, lr=0.1, momentum=0.8, weight_decay=0.01)
    result = defense(model, small_batches(), None, progress=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.8, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    model.train()
    for _ in range(4):
        for images, labels in small_batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        schedule.step()
    for (name, mine), theirs in zip(
        result.model.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name


def test_its_defaults_are_those_of_the_published_comparisons():
    defense = FineTuning()
    assert (defense.epochs, defense.lr, defense.momentum, defense.weight_decay) == (
        100,
        0.01,
        0.9,
        5e-4,
    )


def test_no_distance_is_recorded():
    history = FineTuning(epochs=2)(small_model(), small_batches(), None, progress=False).history
    assert [e.distance for e in history] == [None, None]


def test_the_smallest_numbers_are_allowed():
    defense = FineTuning(epochs=1, lr=0.0, momentum=0.0, weight_decay=0.0)
    model = small_model()
    repaired = defense(model, small_batches(), None, progress=False).model
    assert torch.equal(repaired[3].weight, model[3].weight)
