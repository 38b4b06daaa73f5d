"""Adaptive attackers: what they add to an attack, by hand, and what they leave as it is."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from d3fast.attacks import (
    ABIAttacker,
    BadNets,
    DetectorAwareAttacker,
    DistanceAwareAttacker,
    SAMAttacker,
    TrainConfig,
    train_backdoored,
)
from d3fast.attacks.base import Training, training_plan
from d3fast.attacks.channel_bounds import channel_bounds
from d3fast.audit.detectors.context import open_context
from d3fast.audit.detectors.head import HeadWeights
from d3fast.audit.detectors.margin import MaximumMargin
from d3fast.data import digits
from d3fast.runtime.seeding import generator, global_seed
from d3fast.training.loop import plain_gradients

BASE = BadNets(target=8, size=2, margin=0)
WRAPPERS = [
    SAMAttacker(BASE, budget=1.0),
    DistanceAwareAttacker(BASE),
    DetectorAwareAttacker(BASE, starts=2, steps=2),
    ABIAttacker(BASE),
]
IDS = ["SAM", "distance-aware", "detector-aware", "abi"]


@pytest.fixture(scope="module")
def few():
    return digits(0, train=256, clean=100).train


def _model():
    with global_seed(0):
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@pytest.mark.parametrize("attack", WRAPPERS, ids=IDS)
def test_trigger_target_and_poisoned_set_are_those_of_the_base_attack(attack, few):
    assert (attack.target, attack.mapping) == (8, "all-to-one")
    assert torch.equal(attack.trigger(few.images[:4]), BASE.trigger(few.images[:4]))
    ours = attack.poison(few, 0.1, generator=generator(0, "poison"))
    theirs = BASE.poison(few, 0.1, generator=generator(0, "poison"))
    assert torch.equal(ours.data.images, theirs.data.images)
    assert torch.equal(ours.indices, theirs.indices)


@pytest.mark.parametrize("attack", WRAPPERS, ids=IDS)
def test_it_trains_on_the_batches_of_the_base_attack(attack, few):
    options = {"ratio": 0.1, "batch_size": 64, "seed": 3, "progress": False}
    ours, theirs = (training_plan(a, few, **options) for a in (attack, BASE))
    for (images, labels), (same, also) in zip(ours.loader, theirs.loader, strict=True):
        assert torch.equal(images, same)
        assert torch.equal(labels, also)
    assert ours.gradients is not plain_gradients


@pytest.mark.parametrize("attack", WRAPPERS, ids=IDS)
def test_the_same_seed_gives_the_same_bits(attack, few):
    config = TrainConfig(epochs=1, batch_size=64)
    first, again, plain = (
        train_backdoored(_model(), few, a, seed=1, config=config, progress=False)[-1].weight
        for a in (attack, attack, BASE)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, plain)


@pytest.mark.parametrize("attack", WRAPPERS, ids=IDS)
def test_it_trains_under_bf16_autocast(attack, few):
    config = TrainConfig(epochs=1, batch_size=64, precision="bf16")
    model = train_backdoored(_model(), few, attack, config=config, progress=False)
    assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in model.parameters())


def _gradient(attack, few, model):
    plan = training_plan(attack, few, ratio=0.1, batch_size=128, seed=0, progress=False)
    images, labels = next(iter(plan.loader))
    model.zero_grad(set_to_none=True)
    plan.gradients(model, images, labels, nn.CrossEntropyLoss())
    return model[-1].weight.grad.clone(), images, labels


@pytest.mark.parametrize(
    "attack",
    [
        SAMAttacker(BASE, budget=0.0),
        DistanceAwareAttacker(BASE, strength=0.0),
        DetectorAwareAttacker(BASE, strength=0.0),
        ABIAttacker(BASE, deviations=1e9),
    ],
    ids=IDS,
)
def test_at_zero_strength_the_gradient_is_the_plain_one(attack, few):
    model = _model()
    adaptive, images, labels = _gradient(attack, few, model)
    model.zero_grad(set_to_none=True)
    nn.CrossEntropyLoss()(model(images), labels).backward()
    torch.testing.assert_close(adaptive, model[-1].weight.grad)


def test_the_distance_term_is_zero_where_triggered_images_look_like_the_wanted_class():
    head = nn.Linear(2, 3)
    labels, rows, goals = torch.tensor([0, 1, 1]), torch.tensor([1, 2]), torch.tensor([0, 0])
    same = torch.tensor([[1.0, 2.0], [5.0, 0.0], [0.0, 5.0], [1.0, 2.0], [1.0, 2.0]])
    unmoved = torch.tensor([[1.0, 2.0], [5.0, 0.0], [0.0, 5.0], [5.0, 0.0], [0.0, 5.0]])
    attack = DistanceAwareAttacker(BASE)
    term = [
        attack._distance_term(head, features, labels, rows, goals, generator(0, "heads")).item()
        for features in (same, unmoved)
    ]
    assert term == pytest.approx([0.0, 1.0])


def test_the_distance_term_ignores_images_whose_wanted_class_is_not_in_the_batch():
    head = nn.Linear(2, 3)
    labels, rows = torch.tensor([0, 1, 1]), torch.tensor([1, 2])
    features = torch.tensor([[1.0, 2.0], [5.0, 0.0], [0.0, 5.0], [5.0, 0.0], [0.0, 5.0]])
    term = DistanceAwareAttacker(BASE)._distance_term(
        head, features, labels, rows, torch.tensor([2, 2]), generator(0, "heads")
    )
    assert term.item() == 0.0


def test_the_head_is_found_where_it_is_a_convolution(few):
    with global_seed(0):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(8, 10, 1),
            nn.Flatten(),
        )
    config = TrainConfig(epochs=1, batch_size=64)
    train_backdoored(model, few, DistanceAwareAttacker(BASE), config=config, progress=False)
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_with_the_term_triggered_features_move_to_the_target(few):
    config = TrainConfig(epochs=15, batch_size=64, lr=0.1)

    def apart(attack):
        model = train_backdoored(_model(), few, attack, config=config, progress=False)
        others = few.subset((few.labels != BASE.target).nonzero().flatten())
        target = few.subset((few.labels == BASE.target).nonzero().flatten())
        with torch.no_grad():
            body = model[:-1]
            centre = body(target.images / 255).mean(dim=0)
            stamped, clean = body(BASE.trigger(others.images) / 255), body(others.images / 255)
        moved = (stamped - centre).square().sum() / (clean - centre).square().sum()
        return moved.item()

    assert apart(DistanceAwareAttacker(BASE)) < 0.7 * apart(BASE)


def _linear(rows):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(rows))
    return model


@pytest.mark.parametrize("vector", [0.0, 3.0])
def test_the_support_counts_above_the_mean_of_the_other_classes(vector):
    # Centred: class 0 has 2 + 2, the others 1 each; a vector added to all rows changes nothing.
    rows = torch.tensor([[3.0, 3, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1.5]]) + vector
    attack = DetectorAwareAttacker(BadNets(target=0, size=2))
    assert attack._support(_linear(rows.tolist())).item() == pytest.approx(3.0)
    other = DetectorAwareAttacker(BadNets(target=1, size=2))
    assert other._support(_linear(rows.tolist())).item() == 0.0


def test_the_margin_is_that_of_the_best_images_and_leaves_the_model_alone():
    # The largest margins over [0, 1]^4 are 10 for class 0, and 2 for classes 1 and 2.
    model = _linear([[10.0, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    model.insert(1, nn.BatchNorm1d(4, affine=False, eps=0.0))
    model.train()
    attack = DetectorAwareAttacker(BadNets(target=0, size=2))
    inputs = torch.rand(5, 1, 2, 2)
    excess = attack._margin(model, inputs, 3, generator(0, "draws"))
    assert excess.item() == pytest.approx(10 / 2 - 1)
    assert model[1].training
    assert model[1].num_batches_tracked == 0
    excess.backward()
    assert model[2].weight.grad[0, 0] > 0


def test_the_target_class_is_no_outlier_of_head_and_margin(few):
    config = TrainConfig(epochs=15, batch_size=64, lr=0.1)

    def ranks(attack):
        model = train_backdoored(_model(), few, attack, config=config, progress=False)
        with open_context(model, few, torch.device("cpu")) as context:
            found = [detector(context) for detector in (HeadWeights(), MaximumMargin())]
        return [sorted(values, reverse=True).index(values[BASE.target]) for values in found]

    assert ranks(BASE) == [0, 0]
    assert min(ranks(DetectorAwareAttacker(BASE))) > 0


def test_no_channel_stands_out_after_the_last_epoch(few):
    config = TrainConfig(epochs=5, batch_size=64, lr=0.1)

    def outlier(attack):
        model = train_backdoored(_model(), few, attack, config=config, progress=False)
        bounds = channel_bounds(model[1])
        return ((bounds.max() - bounds.mean()) / bounds.std(correction=0)).item()

    # The step of the last batch follows the limit.
    assert outlier(ABIAttacker(BASE, deviations=1.0)) < 1.7 < outlier(BASE)


def test_an_attack_on_all_classes_has_no_target_to_hide():
    with pytest.raises(ValueError, match="must have one target class, got all-to-all"):
        DetectorAwareAttacker(BadNets(target=0, mapping="all-to-all"))


@dataclass(frozen=True)
class TrainsItself(BadNets):
    """An attack whose trigger is trained together with the model."""

    def training(self, data, *, ratio, batch_size, seed, progress):
        def gradients(*args):
            return plain_gradients(*args)

        return Training(data.batches(batch_size), gradients)


@pytest.mark.parametrize("attack", WRAPPERS, ids=IDS)
def test_a_trigger_that_is_still_being_trained_is_refused(attack, few):
    joint = replace(attack, base=TrainsItself(target=8))
    with pytest.raises(ValueError, match="TrainsItself trains its trigger together with"):
        training_plan(joint, few, ratio=0.1, batch_size=64, seed=0, progress=False)


@pytest.mark.parametrize(
    ("make", "error_text"),
    [
        (lambda: ABIAttacker(BASE, -1.0), "deviations must be finite and >= 0, got -1.0"),
        (lambda: SAMAttacker(BASE, budget=-1.0), "budget must be finite and >= 0, got -1.0"),
        (lambda: DistanceAwareAttacker(BASE, strength=-1.0), "strength must be finite and >= 0"),
        (lambda: DistanceAwareAttacker(BASE, draws=0), "draws must be an integer >= 1, got 0"),
        (lambda: DetectorAwareAttacker(BASE, strength=-1.0), "strength must be finite and >= 0"),
        (lambda: DetectorAwareAttacker(BASE, starts=0), "starts must be an integer >= 1, got 0"),
        (lambda: DetectorAwareAttacker(BASE, steps=0), "steps must be an integer >= 1, got 0"),
        (lambda: DistanceAwareAttacker(BASE, share=0.0), r"share must be in \(0, 1\], got 0.0"),
        (lambda: DistanceAwareAttacker(BASE, share=1.5), r"share must be in \(0, 1\], got 1.5"),
    ],
    ids=[
        "deviations",
        "budget",
        "strength",
        "draws",
        "aware",
        "starts",
        "steps",
        "no share",
        "share",
    ],
)
def test_bad_options_are_named(make, error_text):
    with pytest.raises(ValueError, match=error_text):
        make()
