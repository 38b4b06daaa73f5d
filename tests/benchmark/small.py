"""A data set and a model that are trained in a second."""

from d3fast.attacks import TrainConfig
from d3fast.benchmark.implant import AttackSpec


def small_spec(epochs=1, train=64, clean=50, attack=None, **training):
    """A spec on digits; ``training`` are options of its recipe."""
    recipe = TrainConfig(epochs=epochs, **training)
    return AttackSpec(
        "digits", "preact_resnet_tiny", attack, train=train, clean=clean, training=recipe
    )


def learned_spec():
    """A spec whose model learns the trigger of BadNets."""
    return small_spec(epochs=3, train=300, clean=120, batch_size=32, lr=0.1)
