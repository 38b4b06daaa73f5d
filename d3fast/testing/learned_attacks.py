# SPDX-License-Identifier: Apache-2.0
"""The contract of an attack whose trigger is learned; part of that of an attack."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from d3fast.attacks import load_attack, save_attack
from d3fast.testing.rules import Rule, raises, spec_of
from d3fast.testing.toys import random_images

if TYPE_CHECKING:
    from d3fast.testing.attacks import AttackCase

_NAN = float("nan")


@contextmanager
def saved(attack: Any, name: str) -> Iterator[Any]:
    """Give the attack as it is loaded from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "attack")
        save_attack(attack, path, name)
        yield load_attack(path, name)


def same(after: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> bool:
    """Return whether two states have the same names and values."""
    return after.keys() == before.keys() and all(torch.equal(after[k], before[k]) for k in before)


def an_attack_without_a_trigger_says_so_and_can_be_saved(case: "AttackCase") -> None:
    """A trigger that was not learned is missed by name."""
    attack = case.make(target=1)
    assert not attack.learned
    assert attack.state_dict() == {}
    with raises(r"has no \w+ yet: call learn"):
        attack.trigger(torch.rand(1, 1, 8, 8))
    with raises(r"has no \w+ yet: call learn"):
        attack.poison(random_images(), 0.1)
    with saved(attack, spec_of(case.make)) as loaded:
        assert not loaded.learned
    assert case.attack().learned


def a_copy_of_the_options_is_unlearned_and_the_empty_state_resets(case: "AttackCase") -> None:
    """Options and the learned tensors are two things."""
    attack = case.attack()
    assert not replace(attack).learned
    attack.load_state_dict({})
    assert not attack.learned


def tensors_that_do_not_fit_are_named_and_change_nothing(case: "AttackCase") -> None:
    """A tensor of another name, shape, dtype, or with NaN is refused by name."""
    changes: tuple[Callable[[Tensor], Tensor] | None, ...] = (
        None,
        lambda value: torch.full_like(value, _NAN),
        lambda value: value.double(),
        lambda value: torch.zeros(9),
        lambda value: torch.zeros(0),
    )
    attack = case.attack()
    before = attack.state_dict()
    for place in (0, -1):
        key = list(before)[place]
        for change in changes:
            state = {other: value for other, value in before.items() if other != key}
            state[key if change else "renamed"] = change(before[key]) if change else before[key]
            with raises(key):
                attack.load_state_dict(state)
            assert same(attack.state_dict(), before)


def images_of_other_channels_are_refused(case: "AttackCase") -> None:
    """A learned trigger is for the channels that it was learned on."""
    with raises(r"1 (channels|x H x W).*3"):
        case.attack().trigger(torch.rand(1, 3, 8, 8))


def learning_is_decided_by_the_seed_and_changes_nothing_else(case: "AttackCase") -> None:
    """``learn`` changes neither the data nor the global generator."""
    data, state, states = random_images(32), torch.get_rng_state(), []
    images, labels = data.images.clone(), data.labels.clone()
    for seed in (0, 0, 1):
        attack = case.make(target=1, **case.options)
        with torch.no_grad():
            attack.learn(data, seed=seed, progress=False)
        states.append(torch.cat([value.flatten() for value in attack.state_dict().values()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(data.images, images)
    assert torch.equal(data.labels, labels)


LEARNED: tuple[Rule, ...] = (
    an_attack_without_a_trigger_says_so_and_can_be_saved,
    a_copy_of_the_options_is_unlearned_and_the_empty_state_resets,
    tensors_that_do_not_fit_are_named_and_change_nothing,
    images_of_other_channels_are_refused,
    learning_is_decided_by_the_seed_and_changes_nothing_else,
)
