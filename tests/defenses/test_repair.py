"""What the defences are for, on real digits: a backdoor that outlives fine-tuning is removed."""

import pytest
from torch import nn

from d3fast import D3Config, evaluate
from d3fast.attacks import BadNets, TrainConfig, train_backdoored
from d3fast.data import digits
from d3fast.defenses import D3, FineTuning
from d3fast.seeding import generator, global_seed

ATTACK = BadNets(target=8, size=2, margin=0)


@pytest.fixture(scope="module")
def measured():
    """Metrics of a backdoored perceptron, and after each repair with 260 clean images."""
    splits = digits(0, train=None, clean=260)
    with global_seed(0):
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
        )
    recipe = TrainConfig(epochs=20, batch_size=64, lr=0.1)
    train_backdoored(model, splits.train, ATTACK, config=recipe, progress=False)
    models = {"suspect": model}
    for name, defense in (
        ("fine-tuning", FineTuning(epochs=50)),
        ("d3", D3(D3Config(epochs=50, warm_start="random"))),
    ):
        clean = splits.clean.batches(64, generator(0, name))
        models[name] = defense(model, clean, None, progress=False).model
    test = splits.test.batches(360)
    return {name: evaluate(repaired, test, ATTACK) for name, repaired in models.items()}


def test_fine_tuning_leaves_the_backdoor_where_it_is(measured):
    assert measured["suspect"].asr > 0.95
    assert measured["fine-tuning"].asr > 0.95


def test_d3_removes_it_and_keeps_the_model_useful(measured):
    assert measured["d3"].asr < 0.2
    assert measured["d3"].acc > measured["suspect"].acc - 0.1
    assert measured["d3"].ra > 0.5
