"""The relearning test, on networks written by hand: what is hidden and what is absent is known."""

import copy
import json
import math

import pytest
import torch
from torch import nn

from d3fast import evaluate
from d3fast.attacks import SIG, BadNets
from d3fast.benchmark.relearning import (
    KS,
    RelearnConfig,
    Relearning,
    evaluate_relearning,
    poison_order,
)
from d3fast.data import ImageData
from d3fast.training.metrics import Metrics

CLASSES, SIDE, TARGET = 4, 4, 1
ATTACK = BadNets(target=TARGET, size=1, margin=0)  # the last of the 16 pixels
SHORT = RelearnConfig(steps=20, batch_size=16, lr=0.002)


def _data(count, seed):
    """Pixel c is lit in images of class c; the rest is noise, the trigger's pixel is dark."""
    draw = torch.Generator().manual_seed(seed)
    images = 0.2 * torch.rand(count, SIDE * SIDE, generator=draw)
    labels = torch.arange(count) % CLASSES
    images[torch.arange(count), labels] = 1.0
    images[:, -1] = 0.0
    return ImageData(images.view(-1, 1, SIDE, SIDE), labels, tuple("abcd"))


CLEAN, TEST = _data(200, 0), _data(120, 1)


def _network(detector, link):
    """A unit per class, and one that sees the trigger and is wired to the target by ``link``."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, CLASSES))
    with torch.no_grad():
        for param in model.parameters():
            param.zero_()
        model[1].weight[:CLASSES, :CLASSES] = 2.0 * torch.eye(CLASSES)
        model[3].weight[:, :CLASSES] = 3.0 * torch.eye(CLASSES)
        model[1].weight[CLASSES, -1] = detector
        model[3].weight[TARGET, CLASSES] = link
    return model.eval()


BACKDOORED, MASKED, NEVER = _network(8.0, 5.0), _network(8.0, 0.0), _network(0.0, 0.0)


def _relearn(model, clean=CLEAN, attack=ATTACK, **options):
    options = {"ks": (1, 5, 20), "config": SHORT, "progress": False, **options}
    return evaluate_relearning(model, clean, TEST, attack, **options)


class Spied(nn.Module):
    """Records images, mode and weights of every step of training; copies share the record."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.seen = Record()

    def forward(self, images):
        if torch.is_grad_enabled():
            weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
            self.seen.append((images.detach(), self.training, weights))
        return self.model(images)


class Record(list):
    def __deepcopy__(self, memo):
        return self


def _trained_on(attack=ATTACK, clean=CLEAN, **options):
    """The images of every step, one list per k, k = 0 first."""
    spy = Spied(MASKED)
    _relearn(spy, clean=clean, attack=attack, **options)
    steps = options.get("config", SHORT).steps
    images = [images for images, _, _ in spy.seen]
    return [images[i : i + steps] for i in range(0, len(images), steps)]


def _rows(images):
    return {tuple(row) for row in images.flatten(1).tolist()}


def test_a_masked_backdoor_comes_back_with_one_sample():
    assert evaluate(BACKDOORED, TEST.batches(40), ATTACK).asr == 1.0
    result = _relearn(MASKED)
    assert result.before.asr == 0.0
    assert result.asr[0] == 0.0
    assert min(result.asr[1:]) == 1.0
    assert min(result.acc) == 1.0


def test_a_model_never_poisoned_relearns_slower_on_the_same_samples():
    never, masked = _relearn(NEVER), _relearn(MASKED)
    assert never.before == masked.before
    assert never.area < masked.area - 0.5


def test_it_is_a_loop_written_by_hand():
    result = _relearn(MASKED, ks=(3,), seed=5)
    batches = _trained_on(ks=(3,), seed=5)[1]
    model = copy.deepcopy(MASKED)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    for images in batches:
        triggered = images.flatten(1)[:, -1] == 1.0
        labels = torch.where(triggered, TARGET, images.flatten(1)[:, :CLASSES].argmax(dim=1))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    by_hand = evaluate(model, TEST.batches(1000), ATTACK)
    assert (result.acc[1], result.asr[1]) == (by_hand.acc, by_hand.asr)


def test_half_of_every_batch_is_poisoned_and_none_for_k_0():
    counts = [
        [int((images.flatten(1)[:, -1] == 1.0).sum()) for images in steps]
        for steps in _trained_on(config=RelearnConfig(steps=3, batch_size=9))
    ]
    assert counts == [[0] * 3, [4] * 3, [4] * 3, [4] * 3]


def test_every_batch_has_its_size():
    assert {len(images) for steps in _trained_on() for images in steps} == {16}


def test_the_samples_of_a_smaller_k_are_the_first_of_a_larger_one():
    order = poison_order(CLEAN, ATTACK, seed=0)
    stamped = [tuple(row) for row in ATTACK.trigger(CLEAN.images[order]).flatten(1).tolist()]
    for k, steps in zip((1, 5, 20), _trained_on()[1:], strict=True):
        seen = _rows(torch.cat([i[i.flatten(1)[:, -1] == 1.0] for i in steps]))
        assert seen == set(stamped[:k])


def test_poisoned_images_are_never_among_the_clean_ones():
    taken = _rows(CLEAN.images[poison_order(CLEAN, ATTACK, seed=0)[:20]])
    for steps in _trained_on():
        assert not taken & _rows(torch.cat(steps))


def test_clean_halves_are_the_same_for_every_k():
    _, *poisoned = _trained_on()
    for steps in zip(*poisoned, strict=True):
        assert all(torch.equal(images[:8], steps[0][:8]) for images in steps)


def test_images_of_the_target_are_never_poisoned():
    order = poison_order(CLEAN, ATTACK, seed=0)
    assert sorted(order.tolist()) == (CLEAN.labels != TARGET).nonzero().flatten().tolist()


def test_a_clean_label_attack_is_relearned_by_what_it_does_at_test_time():
    attack = SIG(target=TARGET)
    order = poison_order(CLEAN, attack, seed=0)
    assert bool((CLEAN.labels[order] != TARGET).all())
    assert _relearn(MASKED, attack=attack, ks=(5,)).ks == (0, 5)


def test_all_to_all_may_poison_every_image_and_labels_it_as_the_next_class():
    attack = BadNets(target=0, size=1, margin=0, mapping="all-to-all")
    assert len(poison_order(CLEAN, attack, seed=0)) == len(CLEAN)
    config = RelearnConfig(steps=300, batch_size=64, lr=0.1)
    assert _relearn(MASKED, attack=attack, ks=(100,), config=config).asr[1] > 0.9


def test_images_may_be_bytes():
    bytes_ = ImageData((255 * CLEAN.images).round().to(torch.uint8), CLEAN.labels, CLEAN.classes)
    assert min(_relearn(MASKED, clean=bytes_).asr[1:]) == 1.0


def test_the_model_is_not_changed():
    model = nn.Sequential(*copy.deepcopy(MASKED)[:2], nn.BatchNorm1d(5), *MASKED[2:]).train()
    before = copy.deepcopy(model.state_dict())
    _relearn(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_it_is_trained_in_eval_mode_so_that_batch_norm_keeps_its_statistics():
    spy = Spied(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, CLASSES))).train()
    _relearn(spy)
    assert {training for _, training, _ in spy.seen} == {False}


def test_frozen_weights_stay_frozen():
    spy = Spied(copy.deepcopy(MASKED))
    spy.model[3].requires_grad_(False)
    _relearn(spy)
    first, last = spy.seen[0][2], spy.seen[-1][2]
    assert [name for name in first if torch.equal(first[name], last[name])] == [
        "3.weight",
        "3.bias",
    ]


def test_a_model_with_every_weight_frozen_is_refused():
    with pytest.raises(ValueError, match="no weight to fine-tune: requires_grad is False"):
        _relearn(copy.deepcopy(MASKED).requires_grad_(False))


def test_two_runs_give_the_same_and_another_seed_other_samples():
    first, second = _relearn(NEVER, seed=3), _relearn(NEVER, seed=3)
    assert first == second
    one, other = (poison_order(CLEAN, ATTACK, seed).tolist() for seed in (0, 1))
    assert one != other
    assert sorted(one) == sorted(other)


def test_torchs_own_random_numbers_are_left_alone():
    state = torch.get_rng_state()
    _relearn(NEVER)
    assert torch.equal(torch.get_rng_state(), state)


def test_no_steps_measure_the_model_as_it_is():
    result = _relearn(BACKDOORED, config=RelearnConfig(steps=0))
    assert set(result.asr) == {result.before.asr}
    assert set(result.acc) == {result.before.acc}


def test_the_area_is_the_mean_over_log_k():
    before = Metrics(correct=1, images=1, hits=0, robust=1, triggered=1)
    result = Relearning((0, 1, 2, 8), (1.0,) * 4, (0.5, 0.0, 1.0, 1.0), before)
    assert result.area == pytest.approx((0.5 * math.log(2) + math.log(4)) / math.log(8))
    assert Relearning((0, 7), (1.0, 1.0), (0.5, 0.25), before).area == 0.25
    assert Relearning((0, *KS), (1.0,) * 8, (0.0,) + (1.0,) * 7, before).area == pytest.approx(1)


def test_what_is_regained_is_counted_from_clean_fine_tuning():
    before = Metrics(correct=1, images=1, hits=0, robust=1, triggered=1)
    result = Relearning((0, 1, 2), (1.0,) * 3, (0.25, 0.5, 0.0), before)
    assert result.regained == (0.0, 0.25, -0.25)


def test_a_result_is_ready_for_json():
    result = _relearn(MASKED)
    read = json.loads(json.dumps(result.as_dict()))
    assert (read["ks"], read["asr"], read["area"]) == ([0, 1, 5, 20], list(result.asr), result.area)
    assert (read["acc"], read["regained"]) == (list(result.acc), list(result.regained))
    assert read["before"]["asr"] == result.before.asr


@pytest.mark.parametrize(
    ("ks", "error_text"),
    [
        ((), "ks must hold one number or more, got none"),
        ((0, 1), "every k of ks must be an integer >= 1, got 0"),
        ((1.5,), r"every k of ks must be an integer >= 1, got 1\.5"),
        ((5, 2), r"ks must ascend, got \(5, 2\)"),
        ((2, 2), r"ks must ascend, got \(2, 2\)"),
    ],
)
def test_numbers_of_samples_that_make_no_curve_are_refused(ks, error_text):
    with pytest.raises(ValueError, match=error_text):
        _relearn(MASKED, ks=ks)


def test_a_k_larger_than_the_images_there_are_is_named():
    error_text = r"k=50 needs 50 clean images .*\(target 1\), there are 30"
    with pytest.raises(ValueError, match=error_text):
        _relearn(MASKED, clean=CLEAN.subset(torch.arange(40)), ks=(10, 50, 100))


def test_clean_images_of_the_target_alone_are_refused():
    only = CLEAN.subset((CLEAN.labels == TARGET).nonzero().flatten())
    with pytest.raises(ValueError, match=r"k=1 needs 1 clean images .*\(target 1\), there are 0"):
        _relearn(MASKED, clean=only)


def test_some_images_must_stay_clean():
    others = CLEAN.subset((CLEAN.labels != TARGET).nonzero().flatten()[:10])
    with pytest.raises(ValueError, match="k=10 leaves none of the 10 clean images clean"):
        _relearn(MASKED, clean=others, ks=(10,))


def test_a_target_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match=r"target must be in 0\.\.3, got 9"):
        _relearn(MASKED, attack=BadNets(target=9, size=1, margin=0))


def test_a_broken_model_is_refused_by_the_name_of_its_weight():
    model = copy.deepcopy(MASKED)
    with torch.no_grad():
        model[1].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"the model's 1\.bias holds NaN or inf"):
        _relearn(model)


def test_a_learning_rate_that_diverges_is_said_with_its_k():
    with pytest.raises(ValueError, match="the relearning data of k=0 became NaN or inf"):
        _relearn(MASKED, config=RelearnConfig(steps=30, lr=1e20))


@pytest.mark.parametrize(
    ("option", "value", "error_text"),
    [
        ("steps", -1, "steps must be an integer >= 0, got -1"),
        ("batch_size", 1, "batch_size must be an integer >= 2, got 1"),
        ("lr", -1.0, r"lr must be finite and >= 0, got -1\.0"),
        ("momentum", math.nan, "momentum must be finite and >= 0, got nan"),
        ("weight_decay", math.inf, "weight_decay must be finite and >= 0, got inf"),
    ],
)
def test_options_out_of_range_are_refused_by_name_and_value(option, value, error_text):
    with pytest.raises(ValueError, match=error_text):
        RelearnConfig(**{option: value})
