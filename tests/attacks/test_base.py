# SPDX-License-Identifier: Apache-2.0
"""Training plans: the attack's own, or the set poisoned once."""

from dataclasses import dataclass

import torch

from d3fast.attacks import BadNets
from d3fast.attacks.base import OwnTraining, Training, training_plan
from d3fast.data import digits
from d3fast.runtime.seeding import generator
from d3fast.training.loop import plain_gradients

OPTIONS = {"ratio": 0.2, "batch_size": 32, "seed": 3, "progress": False}


def test_an_attack_without_a_plan_poisons_the_set_once():
    data, attack = digits(0, train=64, clean=20).train, BadNets(1, size=2)
    plan = training_plan(attack, data, **OPTIONS)
    poisoned = attack.poison(data, 0.2, generator=generator(3, "poison")).data
    expected = poisoned.batches(32, generator(3, "training order"))
    assert plan.gradients is plain_gradients
    for got, want in zip(plan.loader, expected, strict=True):
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])


@dataclass(frozen=True)
class Planned(BadNets):
    """Attack with a training plan of its own."""

    def training(self, data, *, ratio, batch_size, seed, progress):
        return Training([(ratio, batch_size, seed, progress)])


def test_an_attacks_own_plan_gets_all_options():
    assert isinstance(Planned(1), OwnTraining)
    plan = training_plan(Planned(1), digits(0, train=64, clean=20).train, **OPTIONS)
    assert plan.loader == [(0.2, 32, 3, False)]
