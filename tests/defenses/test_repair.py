"""What the defences are for, on real digits: a backdoor that outlives fine-tuning is removed."""

import pytest
from torch import nn

from d3fast import D3Config, evaluate
from d3fast.attacks import BadNets, TrainConfig, train_backdoored
from d3fast.audit.inversion import InversionOptions
from d3fast.benchmark.defender import defender_samples
from d3fast.data import digits
from d3fast.defenses import D3, FST, FinePruning, FineTuning, NeuralCleanse
from d3fast.runtime.seeding import generator, global_seed

ATTACK = BadNets(target=8, size=2, margin=0)
REPAIRS = {
    "fine-tuning": FineTuning(epochs=50),
    "fine-pruning": FinePruning(epochs=50),
    "neural-cleanse": NeuralCleanse(epochs=20, inversion=InversionOptions(steps=200)),
    "fst": FST(epochs=50),
    "d3": D3(D3Config(epochs=50, warm_start="random")),
}


@pytest.fixture(scope="module")
def measured():
    """Metrics of a backdoored perceptron, and after each repair with 260 clean images.

    A fifth of them is held out.
    """
    splits = digits(0, train=None, clean=260)
    with global_seed(0):
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10)
        )
    recipe = TrainConfig(epochs=20, batch_size=64, lr=0.1)
    train_backdoored(model, splits.train, ATTACK, config=recipe, progress=False)
    models = {"suspect": model}
    train, held_out, _ = defender_samples(splits.clean, 260, 0.2, seed=0)
    for name, defense in REPAIRS.items():
        clean = train.batches(64, generator(0, name))
        models[name] = defense(model, clean, held_out.batches(52), progress=False).model
    test = splits.test.batches(360)
    return {name: evaluate(repaired, test, ATTACK) for name, repaired in models.items()}


def test_fine_tuning_leaves_the_backdoor_where_it_is(measured):
    assert measured["suspect"].asr > 0.95
    assert measured["fine-tuning"].asr > 0.95


# FST pays for it: 18 points of accuracy here, with alpha as published for CIFAR-10.
@pytest.mark.parametrize(
    ("name", "price"), [("fine-pruning", 0.1), ("neural-cleanse", 0.1), ("fst", 0.3), ("d3", 0.1)]
)
def test_others_remove_it_and_keep_the_model_useful(measured, name, price):
    assert measured[name].asr < 0.2
    assert measured[name].acc > measured["suspect"].acc - price
    assert measured[name].ra > 0.5
