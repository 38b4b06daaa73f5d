"""A data set and a model that are trained in a second."""

from d3fast.attacks import TrainConfig
from d3fast.benchmark.implant import AttackSpec


def small_spec(epochs=1, train=64, clean=50, attack=None, **training):
    """A spec on digits; ``training`` are options of its recipe."""
    recipe = TrainConfig(epochs=epochs, **training)
    return AttackSpec(
        "digits", "preact_resnet_tiny", attack, train=train, clean=clean, training=recipe
    )
