# SPDX-License-Identifier: Apache-2.0
"""Backdoor attacks of images, listed in the registry ``ATTACKS``."""

from d3fast.attacks.adap_blend import AdapBlend
from d3fast.attacks.adaptive import (
    ABIAttacker,
    DetectorAwareAttacker,
    DistanceAwareAttacker,
    SAMAttacker,
)
from d3fast.attacks.badnets import BadNets
from d3fast.attacks.base import Attack, Learned, OwnTraining
from d3fast.attacks.blended import Blended
from d3fast.attacks.cache import ensure_learned
from d3fast.attacks.files import save_attack
from d3fast.attacks.input_aware import InputAware
from d3fast.attacks.low_frequency import LowFrequency
from d3fast.attacks.narcissus import Narcissus
from d3fast.attacks.poisoning import Poisoned
from d3fast.attacks.registry import ADAPTIVE, ATTACKS, load_attack, recipe
from d3fast.attacks.sig import SIG
from d3fast.attacks.ssba import SSBA
from d3fast.attacks.training import TrainConfig, train_backdoored
from d3fast.attacks.wanet import WaNet

__all__ = [
    "ADAPTIVE",
    "ATTACKS",
    "SIG",
    "SSBA",
    "ABIAttacker",
    "AdapBlend",
    "Attack",
    "BadNets",
    "Blended",
    "DetectorAwareAttacker",
    "DistanceAwareAttacker",
    "InputAware",
    "Learned",
    "LowFrequency",
    "Narcissus",
    "OwnTraining",
    "Poisoned",
    "SAMAttacker",
    "TrainConfig",
    "WaNet",
    "ensure_learned",
    "load_attack",
    "recipe",
    "save_attack",
    "train_backdoored",
]
