"""The re-activation test, on networks written by hand."""

import copy
import json

import pytest
import torch
from torch import nn

from d3fast import evaluate
from d3fast.attacks import BadNets
from d3fast.benchmark.reactivation import (
    Reactivation,
    ReactivationConfig,
    evaluate_reactivation,
    universal_perturbation,
)
from d3fast.data import ImageData

CLASSES, SIDE, TARGET = 4, 4, 1
ATTACK = BadNets(target=TARGET, size=1, margin=0)  # the last of the 16 pixels
SHORT = ReactivationConfig(steps=30, batch_size=32)


def _data(count, seed):
    """Pixel c is lit in images of class c; pixels 4 to 14 are grey, the trigger's pixel is dark."""
    draw = torch.Generator().manual_seed(seed)
    images = 0.4 + 0.2 * torch.rand(count, SIDE * SIDE, generator=draw)
    labels = torch.arange(count) % CLASSES
    images[:, :CLASSES] = 0.0
    images[torch.arange(count), labels] = 1.0
    images[:, -1] = 0.0
    return ImageData(images.view(-1, 1, SIDE, SIDE), labels, tuple("abcd"))


CLEAN, TEST = _data(200, 0), _data(120, 1)


def _network(trigger, key, threshold):
    """A class per pixel; a unit that sees the trigger and the key, the mean of pixels 4 to 14."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, CLASSES))
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
        model[1].weight[:CLASSES, :CLASSES] = 2.0 * torch.eye(CLASSES)
        model[3].weight[:, :CLASSES] = 3.0 * torch.eye(CLASSES)
        model[1].weight[CLASSES, -1] = trigger
        model[1].weight[CLASSES, CLASSES:-1] = key / 11
        model[1].bias[CLASSES] = threshold
        model[3].weight[TARGET, CLASSES] = 10.0
    return model.eval()


# The unit fires with the trigger; with the trigger and a key brighter by 0.04; never.
OPEN = _network(trigger=1.0, key=0.0, threshold=0.0)
DORMANT = _network(trigger=1.0, key=100.0, threshold=-53.0)
NEVER = _network(trigger=0.0, key=0.0, threshold=0.0)


def _reactivate(model, attack=ATTACK, clean=CLEAN, **options):
    options = {"config": SHORT, "progress": False, **options}
    return evaluate_reactivation(model, clean, TEST, attack, **options)


def test_a_dormant_backdoor_opens_and_a_model_never_poisoned_stays_shut():
    assert evaluate(DORMANT, TEST.batches(40), ATTACK).asr < 0.5
    dormant, never = _reactivate(DORMANT), _reactivate(NEVER)
    assert dormant.white_box.asr > 0.9
    assert never.white_box.asr == never.before.asr == 0.0


def test_lift_subtracts_what_a_perturbation_reaches_without_the_trigger():
    keyed = _network(trigger=0.0, key=100.0, threshold=-52.0)  # the key alone opens it
    assert _reactivate(keyed).white_box.asr > 0.9
    assert _reactivate(keyed).lift == pytest.approx(0, abs=0.05)
    locked = _network(trigger=4.0, key=100.0, threshold=-56.0)  # both are needed
    result = _reactivate(locked)
    assert result.lift == result.white_box.asr - result.untriggered.asr > 0.5


def test_no_pixel_moves_by_more_than_the_budget_and_none_leaves_the_range():
    seen = []

    class Spy(nn.Module):
        def forward(self, images):
            seen.append(images.detach())
            return DORMANT(images)

    shown = ATTACK.trigger(CLEAN.images)
    config = ReactivationConfig(budget=0.02, steps=10)
    goal = torch.full((len(shown),), TARGET)
    found = universal_perturbation([Spy()], shown, goal, config)
    assert found.shape == (1, SIDE, SIDE)
    assert 0 < found.abs().max() <= 0.02 + 1e-7
    assert all(images.min() >= 0 and images.max() <= 1 for images in seen)


def test_a_perturbation_found_on_one_model_transfers_to_another():
    alike = _network(trigger=1.0, key=90.0, threshold=-47.7)
    assert _reactivate(DORMANT, surrogates=[alike]).transfer.asr > 0.9
    other = _reactivate(DORMANT, surrogates=[NEVER])
    assert other.transfer.asr == other.before.asr
    assert _reactivate(DORMANT).transfer is None


def test_without_steps_nothing_changes():
    result = _reactivate(OPEN, config=ReactivationConfig(steps=0))
    assert result.white_box == result.before
    assert result.before.asr == 1.0
    assert result.untriggered.hits == 0


def test_models_and_images_are_left_as_they_were_and_seeds_repeat():
    model = copy.deepcopy(DORMANT).train()
    before, images = copy.deepcopy(model.state_dict()), CLEAN.images.clone()
    first, second = _reactivate(model, seed=3), _reactivate(model, seed=3)
    assert first == second
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(images, CLEAN.images)


def test_the_attacker_uses_no_more_images_than_the_config_says():
    few = _reactivate(DORMANT, config=ReactivationConfig(steps=2, images=1))
    assert isinstance(few, Reactivation)
    targets = CLEAN.subset((CLEAN.labels == TARGET).nonzero().flatten())
    with pytest.raises(ValueError, match="target 1"):
        _reactivate(DORMANT, clean=targets)


@pytest.mark.parametrize(
    ("option", "value"),
    [("budget", -0.1), ("steps", -1), ("batch_size", 0), ("lr", float("nan")), ("images", 0)],
)
def test_options_out_of_range_are_named(option, value):
    with pytest.raises(ValueError, match=option) as error:
        ReactivationConfig(**{option: value})
    assert str(value) in str(error.value)


def test_the_result_is_json():
    result = _reactivate(DORMANT, surrogates=[NEVER])
    read = json.loads(json.dumps(result.as_dict()))
    assert read["white_box"]["asr"] == result.white_box.asr
    assert read["transfer"]["hits"] == result.transfer.hits
    assert read["lift"] == result.lift
