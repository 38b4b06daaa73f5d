# SPDX-License-Identifier: Apache-2.0
"""The contract of a detector of images: one number per class, repeatable, nothing changed."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from d3fast.audit.detectors.base import run_detector
from d3fast.audit.detectors.context import open_context
from d3fast.testing.rules import Rule, check, raises
from d3fast.testing.toys import CLASSES, Templates, template_inversions, template_samples

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class DetectorCase:
    """A detector under test.

    Attributes:
        make: the class, a frozen dataclass that needs no arguments.
        options: of a quick instance.
        draws: another seed gives other numbers.
    """

    make: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    draws: bool = False

    def rules(self) -> Sequence[Rule]:
        """Return the rules that apply."""
        found = list(_RULES)
        if self.draws:
            found.append(another_seed_gives_other_numbers)
        if hasattr(self.make(), "classes_at_once"):
            found.append(classes_do_not_depend_on_which_others_are_searched_beside_them)
        return tuple(found)

    def quick(self) -> Any:
        """Return the quick instance."""
        return self.make(**self.options)

    def statistics(
        self, model: nn.Module | None = None, seed: int = 0, **options: Any
    ) -> list[float]:
        """Return the numbers of the quick instance for a model with ten classes."""
        chosen = dataclasses.replace(self.quick(), **options)
        suspect = Templates(True) if model is None else model
        with open_context(suspect, template_samples(), _CPU, seed) as context:
            found = chosen(dataclasses.replace(context, inversions=template_inversions()))
            return [float(number) for number in found]


def check_detector(make: Callable[..., Any], **options: Any) -> None:
    """Apply all rules to a detector.

    Args:
        make: the class.
        options: the other fields of ``DetectorCase``.

    Raises:
        AssertionError: the rules that it breaks.

    Example:
        >>> from d3fast.audit.detectors.head import HeadWeights
        >>> check_detector(HeadWeights)
    """
    check(DetectorCase(make, **options))


def it_is_a_frozen_dataclass_with_name_title_and_spread(case: DetectorCase) -> None:
    """Options are frozen and have defaults; the name fits a table."""
    detector = case.make()
    for each in dataclasses.fields(detector):
        with raises(each.name, dataclasses.FrozenInstanceError):
            setattr(detector, each.name, None)
    assert 0 < len(detector.name) <= 40
    assert detector.title
    assert detector.spread >= 0


def it_gives_one_finite_number_per_class(case: DetectorCase) -> None:
    """NaN is no evidence."""
    numbers = case.statistics()
    assert len(numbers) == len(CLASSES)
    assert all(math.isfinite(number) for number in numbers)


def the_same_seed_gives_the_same_numbers(case: DetectorCase) -> None:
    """An inspection can be repeated."""
    assert case.statistics(seed=3) == case.statistics(seed=3)


def another_seed_gives_other_numbers(case: DetectorCase) -> None:
    """A detector that draws its start draws it from the seed."""
    assert case.statistics(seed=3) != case.statistics(seed=4)


def classes_do_not_depend_on_which_others_are_searched_beside_them(case: DetectorCase) -> None:
    """``classes_at_once`` is a matter of memory alone."""
    pairs = zip(case.statistics(classes_at_once=3), case.statistics(), strict=True)
    assert all(math.isclose(a, b, rel_tol=1e-4) for a, b in pairs)


def numbers_of_steps_and_the_like_are_integers_from_1(case: DetectorCase) -> None:
    """Zero steps are refused by name."""
    detector = case.quick()
    for each in dataclasses.fields(detector):
        if each.type in (int, "int"):
            with raises(f"{each.name} must be an integer >= 1, got 0"):
                dataclasses.replace(detector, **{each.name: 0})


def it_does_not_depend_on_the_global_generator(case: DetectorCase) -> None:
    """Draws are those of the context."""
    found = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found.append(case.statistics())
    assert found[0] == found[1]


def it_leaves_weights_and_gradients_alone(case: DetectorCase) -> None:
    """The model is somebody's evidence."""
    model = Templates(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    case.statistics(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())


def its_result_names_the_class_of_the_largest_number(case: DetectorCase) -> None:
    """The sentence of the result begins with the title."""
    detector, numbers = case.quick(), case.statistics()
    with open_context(Templates(True), template_samples(), _CPU) as context:
        context = dataclasses.replace(context, inversions=template_inversions())
        result = run_detector(detector, context, CLASSES, 0.01)
    assert result.name == detector.name
    assert result.target == max(range(len(numbers)), key=numbers.__getitem__)
    assert result.meaning.startswith(detector.title)


_RULES: tuple[Rule, ...] = (
    it_is_a_frozen_dataclass_with_name_title_and_spread,
    it_gives_one_finite_number_per_class,
    the_same_seed_gives_the_same_numbers,
    numbers_of_steps_and_the_like_are_integers_from_1,
    it_does_not_depend_on_the_global_generator,
    it_leaves_weights_and_gradients_alone,
    its_result_names_the_class_of_the_largest_number,
)
