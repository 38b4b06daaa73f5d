"""Training a backdoored model and its clean twin."""

import pytest
import torch
from torch import nn

from d3fast import evaluate
from d3fast.attacks import BadNets, TrainConfig, train_backdoored
from d3fast.data import Augment, digits
from d3fast.runtime.seeding import generator, global_seed

ATTACK = BadNets(target=8, size=2, margin=0)
RECIPE = TrainConfig(epochs=20, batch_size=64, lr=0.1)
SHORT = TrainConfig(epochs=1, batch_size=64)


@pytest.fixture(scope="module")
def splits():
    return digits(0, train=None, clean=100)


@pytest.fixture(scope="module")
def few(splits):
    """256 training images, for everything but accuracy."""
    return splits.train.subset(torch.arange(256))


def _model(seed=0):
    with global_seed(seed):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
        )


def _trained(data, attack, seed=0, config=SHORT, **options):
    return train_backdoored(
        _model(), data, attack, seed=seed, config=config, progress=False, **options
    )


@pytest.fixture(scope="module")
def twins(splits):
    """A backdoored model and its clean twin, with what they score."""
    models = [_trained(splits.train, attack, config=RECIPE) for attack in (ATTACK, None)]
    test = splits.test.batches(360)
    return [evaluate(model, test, ATTACK) for model in models]


def test_a_backdoor_is_implanted_and_the_model_stays_useful(twins):
    backdoored = twins[0]
    assert backdoored.asr > 0.95
    assert backdoored.ra < 0.05
    assert backdoored.acc > 0.90


def test_the_clean_twin_has_no_backdoor(twins):
    clean = twins[1]
    assert clean.asr < 0.2
    assert clean.ra > 0.75
    assert clean.acc > 0.90


def _states_equal(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_training_equals_a_loop_written_by_hand(few):
    data = ATTACK.poison(few, 0.1, generator=generator(5, "poison")).data
    order = generator(5, "training order")
    model = _model().train()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 2)
    for _ in range(2):
        for images, labels in data.batches(64, order):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
        schedule.step()
    config = TrainConfig(epochs=2, batch_size=64, lr=0.05, momentum=0.9, weight_decay=5e-4)
    assert _states_equal(_trained(few, ATTACK, seed=5, config=config), model)


def test_the_data_is_not_changed_and_the_model_is_trained_in_place(few):
    images, labels = few.images.clone(), few.labels.clone()
    model = _model()
    before = model[-1].weight.clone()
    config = TrainConfig(epochs=1, batch_size=256)
    result = train_backdoored(model, few, ATTACK, config=config, progress=False)
    assert torch.equal(few.images, images)
    assert torch.equal(few.labels, labels)
    assert result is model
    assert not result.training
    assert not torch.equal(model[-1].weight, before)


def test_every_epoch_is_reported(few):
    seen = []
    config = TrainConfig(epochs=3, batch_size=64, lr=0.2)
    _trained(few, None, config=config, on_epoch=lambda e, model: seen.append(e))
    assert [e.epoch for e in seen] == [1, 2, 3]
    assert seen[0].lr == 0.2
    assert seen[2].loss < seen[0].loss


@pytest.mark.parametrize(
    ("option", "value", "error_text"),
    [
        ("epochs", 0, "epochs must be an integer >= 1, got 0"),
        ("batch_size", 0, "batch_size must be an integer >= 1, got 0"),
        ("lr", -0.1, r"lr must be finite and >= 0, got -0\.1"),
        ("momentum", float("nan"), "momentum must be finite and >= 0, got nan"),
        ("weight_decay", float("inf"), "weight_decay must be finite and >= 0, got inf"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name_and_value(option, value, error_text):
    with pytest.raises(ValueError, match=error_text):
        TrainConfig(**{option: value})


def test_the_smallest_numbers_are_allowed():
    config = TrainConfig(epochs=1, batch_size=1, lr=0.0, momentum=0.0, weight_decay=0.0)
    assert (config.epochs, config.batch_size) == (1, 1)


def test_poisoned_images_are_augmented_with_the_others(few):
    seen = []

    class Sees(nn.Linear):
        def forward(self, images):
            seen.append(images.detach())
            return super().forward(images.flatten(1))

    def images(augment):
        seen.clear()
        config = TrainConfig(epochs=1, batch_size=256, augment=augment)
        train_backdoored(Sees(64, 10), few, ATTACK, config=config, progress=False)
        return seen[0]

    plain, mirrored = images(None), images(Augment(crop=0))
    flipped = (mirrored == plain.flip(-1)).flatten(1).all(dim=1)
    same = (mirrored == plain).flatten(1).all(dim=1)
    assert bool((flipped | same).all())
    stamped = (plain[:, 0, 6:, 6:] == 1).flatten(1).all(dim=1)
    assert 5 < int((stamped & flipped).sum()) < int(stamped.sum())
