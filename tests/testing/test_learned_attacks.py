"""The contract of a learned trigger finds what is broken."""

from dataclasses import dataclass, field

import pytest
import torch

from d3fast.attacks.poisoning import poison_once
from d3fast.runtime.checks import check_choice, check_integer
from d3fast.testing import check_attack
from d3fast.training.labels import MAPPINGS


@dataclass(frozen=True)
class Careless:
    """Learns a pixel: by the global generator, and loads any tensor."""

    target: int
    mapping: str = "all-to-one"
    _state: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        check_integer("target", self.target, 0)
        check_choice("mapping", self.mapping, MAPPINGS)

    @property
    def learned(self):
        return bool(self._state)

    def learn(self, data, *, seed=0, device=None, progress=True):
        self._state["level"] = torch.rand(1)

    def trigger(self, images):
        if not self.learned:
            raise ValueError("Careless has no level yet: call learn")
        stamped = images.clone()
        stamped[..., -1, -1] = 255 if images.dtype == torch.uint8 else 1
        return stamped

    poison = poison_once

    def state_dict(self):
        return dict(self._state)

    def load_state_dict(self, state):
        self._state.clear()
        self._state.update(state)


def test_a_careless_attack_breaks_the_rules_of_learning():
    with pytest.raises(AssertionError) as caught:
        check_attack(Careless)
    for rule in (
        "foreign_tensors_are_refused_and_change_nothing",
        "tensors_that_do_not_fit_are_named_and_change_nothing",
        "images_of_other_channels_are_refused",
        "learning_is_decided_by_the_seed_and_changes_nothing_else",
    ):
        assert rule in str(caught.value)
    assert "a_copy_of_the_options" not in str(caught.value)
    assert "an_attack_without_a_trigger" not in str(caught.value)
