"""The contract of a detector finds what is broken."""

import re
from dataclasses import dataclass

import pytest
import torch

from d3fast.testing import check_detector


@dataclass(frozen=True)
class Mean:
    """Mean score of each class on the samples."""

    name = "mean"
    title = "mean score"
    spread = 0.0

    def __call__(self, context):
        return context.scores(context.images).mean(dim=0).tolist()


@dataclass(frozen=True)
class Drawn(Mean):
    """Adds noise of the global generator."""

    def __call__(self, context):
        return [value + float(torch.rand(())) for value in super().__call__(context)]


@dataclass(frozen=True)
class Unbounded(Mean):
    """Takes no steps at all."""

    steps: int = 3

    def __call__(self, context):
        return [float("nan"), *super().__call__(context)]


@dataclass(frozen=True)
class Careless(Mean):
    """Changes the model."""

    def __call__(self, context):
        with torch.no_grad():
            next(context.model.parameters()).add_(1)
        return [1.0, 2.0, 3.0]


def broken_by(make, **options):
    with pytest.raises(AssertionError) as caught:
        check_detector(make, **options)
    return set(re.findall(r"^  (\w+):", str(caught.value), re.MULTILINE))


def test_a_detector_without_a_defect_passes():
    check_detector(Mean)


@pytest.mark.parametrize(
    ("make", "rules"),
    [
        (
            Drawn,
            {"the_same_seed_gives_the_same_numbers", "it_does_not_depend_on_the_global_generator"},
        ),
        (
            Unbounded,
            {
                "it_gives_one_finite_number_per_class",
                "numbers_of_steps_and_the_like_are_integers_from_1",
            },
        ),
        (
            Careless,
            {
                "it_gives_one_finite_number_per_class",
                "it_leaves_weights_and_gradients_alone",
            },
        ),
    ],
)
def test_a_defect_is_named(make, rules):
    assert broken_by(make) >= rules


def test_a_detector_that_is_said_to_draw_must_do_so():
    assert broken_by(Mean, draws=True) == {"another_seed_gives_other_numbers"}
