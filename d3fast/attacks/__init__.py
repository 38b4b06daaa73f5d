# SPDX-License-Identifier: Apache-2.0
"""Backdoor attacks, in one registry: what a repair is measured against."""

from d3fast.attacks.adaptive import DistanceAwareAttacker, SAMAttacker
from d3fast.attacks.badnets import BadNets
from d3fast.attacks.base import Attack, Learned, OwnTraining, Poisoned, save_attack
from d3fast.attacks.registry import ADAPTIVE, ATTACKS, load_attack, recipe
from d3fast.attacks.training import TrainConfig, train_backdoored

__all__ = [
    "ADAPTIVE", "ATTACKS", "Attack", "BadNets", "DistanceAwareAttacker", "Learned", "OwnTraining",
    "Poisoned", "SAMAttacker", "TrainConfig", "load_attack", "recipe", "save_attack",
    "train_backdoored",
]  # fmt: skip
