"""The contract of an attack finds what is broken; the attacks here are BadNets with one defect."""

from dataclasses import dataclass

import pytest
import torch

from d3fast.attacks import BadNets
from d3fast.attacks.poisoning import Poisoned
from d3fast.testing import check_attack


@dataclass(frozen=True)
class Mutable(BadNets):
    """Stamps the images in place."""

    def trigger(self, images):
        images[...] = super().trigger(images)
        return images


@dataclass(frozen=True)
class AcrossTheBatch(BadNets):
    """Stamps the first image of a batch alone."""

    def trigger(self, images):
        stamped = super().trigger(images)
        return torch.cat([stamped[:1], images[1:]]) if images.ndim > 3 else stamped


@dataclass(frozen=True)
class Random(BadNets):
    """Draws a grey level by the global generator."""

    def trigger(self, images):
        stamped = super().trigger(images)
        stamped[..., -1, -1] = torch.rand(()).to(images.dtype)
        return stamped


@dataclass(frozen=True)
class Unlabelled(BadNets):
    """Stamps images and leaves all labels."""

    def poison(self, dataset, ratio, target=None, generator=None):
        made = super().poison(dataset, ratio, target, generator)
        return Poisoned(made.data.relabel(dataset.labels), made.indices)


@dataclass(frozen=True)
class Float(BadNets):
    """Turns every dtype into float32."""

    def trigger(self, images):
        return super().trigger(images).float()


@dataclass(frozen=True)
class Careless(BadNets):
    """Checks no option."""

    def __post_init__(self):
        pass


@dataclass(frozen=True)
class Greedy(BadNets):
    """Takes any tensor."""

    def load_state_dict(self, state):
        pass


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (Mutable, "stamping_is_deterministic_and_changes_nothing_else"),
        (AcrossTheBatch, "an_image_is_stamped_alike_alone_and_in_a_batch"),
        (Random, "stamping_is_deterministic_and_changes_nothing_else"),
        (Unlabelled, "the_mapping_decides_the_labels"),
        (Float, "half_types_are_kept"),
        (Float, "shape_and_dtype_are_kept_and_values_stay_in_range"),
        (Careless, "target_must_be_an_integer"),
        (Careless, "an_invalid_option_is_named_with_its_value"),
        (Careless, "mappings_are_accepted_or_named"),
        (Greedy, "foreign_tensors_are_refused_and_change_nothing"),
    ],
)
def test_a_defect_is_named(make, rule):
    with pytest.raises(
        AssertionError, match=rf"{make.__name__} breaks \d+ of 22 rules:(.|\n)*{rule}"
    ):
        check_attack(make, invalid={"size": [0]}, half=True)


def test_a_class_that_cannot_be_imported_cannot_be_loaded_again():
    @dataclass(frozen=True)
    class Local(BadNets):
        size: int = 2

    with pytest.raises(AssertionError, match="a_saved_attack_is_loaded_with_options_and_tensors"):
        check_attack(Local)
