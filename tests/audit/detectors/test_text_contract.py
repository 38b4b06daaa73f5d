"""What every detector of ``TEXT_DETECTORS`` must do, and that both find a planted word."""

import dataclasses
import math

import pytest
import torch

from d3fast.audit.detectors.text_base import TEXT_DETECTORS, strongest, text_result
from d3fast.audit.detectors.text_context import TokenTrigger, open_text_context
from d3fast.text import TextClassifier
from tests.text.tiny import CLASSES, TARGET, TRIGGER, WORDS, Bag, text_data, trained

CPU = torch.device("cpu")


@pytest.fixture(params=TEXT_DETECTORS)
def detector(request):
    return TEXT_DETECTORS[request.param]()


def search(detector, backdoor=True, seed=0, **options):
    chosen = dataclasses.replace(detector, **options)
    with open_text_context(trained(backdoor), text_data(), CPU, seed) as context:
        return chosen(context)


def test_it_is_a_frozen_dataclass_under_its_name(detector):
    assert TEXT_DETECTORS[detector.name] is type(detector)
    assert type(detector).__dataclass_params__.frozen
    assert detector.title
    assert detector.limit > 0


def test_it_gives_the_tokens_of_every_class(detector):
    found = search(detector)
    assert [trigger.target for trigger in found] == list(range(len(CLASSES)))
    for trigger in found:
        assert math.isfinite(trigger.strength)
        assert 0 <= trigger.success <= 1
        assert all(0 < token < len(WORDS) for token in trigger.tokens)


def test_it_finds_the_planted_word_and_its_class(detector):
    best = max(search(detector), key=lambda trigger: trigger.strength)
    assert best.target == TARGET
    assert {WORDS[token] for token in best.tokens} == {TRIGGER}
    assert best.success > 0.9


def test_a_clean_model_has_weaker_tokens_and_is_not_flagged(detector):
    planted, clean = search(detector), search(detector, backdoor=False)
    largest = max(trigger.strength for trigger in clean)
    assert largest < max(trigger.strength for trigger in planted)
    assert largest < detector.limit


def test_the_same_seed_gives_the_same_tokens(detector):
    assert search(detector, seed=3) == search(detector, seed=3)


def test_it_does_not_depend_on_the_global_generator(detector):
    torch.manual_seed(1)
    first = search(detector)
    torch.manual_seed(2)
    assert search(detector) == first


def test_a_model_that_answers_one_class_alone_has_no_tokens_toward_it(detector):
    model = TextClassifier(Bag(), pad=0).eval()
    with torch.no_grad():
        model.model.classifier.bias[1] = 1000.0
    with open_text_context(model, text_data(24), CPU) as context:
        found = detector(context)
    assert (found[1].success, found[1].strength) == (0.0, 0.0)
    assert all(math.isfinite(trigger.strength) for trigger in found)


def test_it_leaves_the_model_alone(detector):
    model = trained(backdoor=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    search(detector)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_numbers_of_steps_and_the_like_are_integers_from_1(detector):
    for field in dataclasses.fields(detector):
        if field.type is int:
            with pytest.raises(ValueError, match=f"{field.name} must be an integer >= 1, got 0"):
                dataclasses.replace(detector, **{field.name: 0})


def test_its_result_names_the_class_the_tokens_and_the_share(detector):
    found = search(detector)
    result = text_result(detector, found, CLASSES)
    assert result.target == TARGET
    assert result.threshold == detector.limit
    assert "highest for 'food'" in result.meaning
    assert f"token {WORDS.index(TRIGGER)}" in result.meaning


def test_the_strongest_of_several_searches_are_kept_and_the_shorter_of_equals():
    first = [TokenTrigger(0, (7, 8), 1.0, 2.0), TokenTrigger(1, (7,), 0.1, 0.3)]
    second = [TokenTrigger(0, (9,), 1.0, 2.0), TokenTrigger(1, (5, 6), 0.2, 0.4)]
    assert [found.tokens for found in strongest([first, second])] == [(9,), (5, 6)]
