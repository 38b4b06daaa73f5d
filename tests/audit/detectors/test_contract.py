"""What every detector of the registry must do; a new one needs one line, its registration."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from d3fast.audit.detectors.base import run_detector
from d3fast.audit.detectors.context import open_context
from d3fast.audit.detectors.registry import DETECTORS, WEIGHT_DETECTORS
from d3fast.audit.inversion import InversionOptions, invert_all
from tests.audit.toys import CLASSES, Templates, samples

CPU = torch.device("cpu")
ALL = {**DETECTORS, **WEIGHT_DETECTORS}


@pytest.fixture(scope="module")
def inversions():
    options = InversionOptions(steps=5)
    return invert_all(
        Templates(False), samples().batches(100), options=options, seed=0, progress=False
    )


@pytest.fixture(params=ALL)
def detector(request):
    """A detector with its default options, but few steps."""
    made = ALL[request.param]()
    short = {"steps": 2} if hasattr(made, "steps") else {}
    return dataclasses.replace(made, **short)


@pytest.fixture
def statistics(detector, inversions):
    def run(model=None, seed=0, **options):
        chosen = dataclasses.replace(detector, **options)
        with open_context(model or Templates(True), samples(), CPU, seed) as context:
            return list(chosen(dataclasses.replace(context, inversions=inversions)))

    return run


def test_it_is_a_frozen_dataclass_under_its_name(detector):
    assert ALL[detector.name] is type(detector)
    assert type(detector).__dataclass_params__.frozen
    assert detector.title
    assert detector.spread >= 0


def test_it_gives_one_finite_number_per_class(statistics):
    numbers = statistics()
    assert len(numbers) == len(CLASSES)
    assert all(math.isfinite(number) for number in numbers)


def test_the_same_seed_gives_the_same_numbers_and_another_one_others(detector, statistics):
    first = statistics(seed=3)
    assert statistics(seed=3) == first
    if hasattr(detector, "steps"):  # those that search draw their start
        assert statistics(seed=4) != first


def test_classes_do_not_depend_on_which_others_are_searched_beside_them(detector, statistics):
    if not hasattr(detector, "classes_at_once"):
        pytest.skip("looks at all classes at once")
    assert statistics(classes_at_once=3) == pytest.approx(statistics(), rel=1e-4)


def test_numbers_of_steps_and_the_like_are_integers_from_1(detector):
    for field in dataclasses.fields(detector):
        if field.type is int or field.type == "int":
            with pytest.raises(ValueError, match=f"{field.name} must be an integer >= 1, got 0"):
                dataclasses.replace(detector, **{field.name: 0})


def test_it_does_not_depend_on_the_global_generator(statistics):
    torch.manual_seed(1)
    first = statistics()
    torch.manual_seed(2)
    assert statistics() == first


def test_it_leaves_weights_and_gradients_alone(detector, statistics):
    model = Templates(True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    statistics(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())


def test_its_result_names_the_class_of_the_largest_number(detector, statistics, inversions):
    numbers = statistics()
    with open_context(Templates(True), samples(), CPU) as context:
        context = dataclasses.replace(context, inversions=inversions)
        result = run_detector(detector, context, CLASSES, 0.01)
    assert result.name == detector.name
    assert result.target == max(range(len(numbers)), key=numbers.__getitem__)
    assert result.meaning.startswith(detector.title)


def test_a_model_with_another_number_of_classes_is_refused(detector, inversions):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(ValueError, match="3"), open_context(model, samples(), CPU) as context:
        detector(dataclasses.replace(context, inversions=inversions[:3]))
