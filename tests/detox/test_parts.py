"""What moves along with a repair's weights: their average, lambda, the end, the recovery."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from d3fast import D3FusedAdamW, D3FusedSGD
from d3fast.detox import D3Config, detoxify
from d3fast.detox.parts import (
    Average,
    Multiplier,
    first_averaged,
    has_settled,
    make_optimizer,
    p_norm_projection,
)
from d3fast.optim.schedules import DistanceSchedule
from d3fast.training.loop import Epoch
from d3fast.training.loss import CleanLoss


def epochs(accuracy, distance):
    return [
        Epoch(i + 1, 0.1, 1.0, 0.1, d, a)
        for i, (a, d) in enumerate(zip(accuracy, distance, strict=True))
    ]


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.fixture
def loader():
    draws = torch.Generator().manual_seed(0)
    images = torch.rand(64, 1, 2, 2, generator=draws)
    return [(images, (images[:, 0, 0, 0] > images[:, 0, 1, 1]).long())]


CONFIG = D3Config(epochs=10, patience=3, averaging=0.0)


def test_a_repair_ends_when_neither_accuracy_nor_distance_grows():
    assert has_settled(epochs([0.9] * 8, [1.0] * 8), CONFIG)


@pytest.mark.parametrize("grown", ["accuracy", "distance"])
def test_it_goes_on_while_one_of_them_grows(grown):
    rising = [0.5 + 0.05 * i for i in range(8)]
    still = [0.9] * 8
    history = epochs(rising, still) if grown == "accuracy" else epochs(still, rising)
    assert not has_settled(history, CONFIG)


def test_it_goes_on_for_half_of_the_epochs_and_until_weights_are_averaged():
    assert not has_settled(epochs([0.9] * 4, [1.0] * 4), CONFIG)
    late = D3Config(epochs=10, patience=3, averaging=0.3)
    assert first_averaged(late) == 8
    assert not has_settled(epochs([0.9] * 7, [1.0] * 7), late)
    assert has_settled(epochs([0.9] * 8, [1.0] * 8), late)


def test_without_patience_it_never_ends_early():
    assert not has_settled(epochs([0.9] * 10, [1.0] * 10), D3Config(epochs=10))


def test_detoxify_ends_early_and_says_so(net, loader):
    config = D3Config(epochs=40, patience=2, averaging=0.0, lr=0.0)
    result = detoxify(net, loader, config, loader, progress=False)
    assert result.ended == "settled"
    assert result.pushed == len(result.history) == 20


@pytest.mark.parametrize("ramp", [False, True])
def test_dual_ascent_follows_its_formula(net, ramp):
    config = D3Config(clean_weight=4.0, dual_step=2.0)
    optimizer = make_optimizer(net, config)
    loss = CleanLoss(config.epsilon, config.weights()[0], config.reduction)
    schedule = DistanceSchedule(optimizer, start=0.0, steps=1) if ramp else None
    multiplier = Multiplier(config, loss, optimizer, 0.5, schedule)
    if schedule is not None:
        schedule.step()
    for held_out, wanted in ((1.0, 5.0), (0.25, 4.5), (9.5, 22.5), (0.0, 21.5)):
        multiplier.update(held_out)
        assert multiplier.value == pytest.approx(wanted)
        assert (loss.weight, optimizer.param_groups[0]["distance_weight"]) == pytest.approx(
            config.weights(wanted)
        )
        assert optimizer.param_groups[1]["distance_weight"] == 0
    multiplier.update(-100.0)
    assert multiplier.value == 0


def test_its_bound_is_the_suspects_own_loss_and_the_margin(net, loader):
    config = D3Config(
        epochs=1, lr=0.0, warm_start="near", clean_weight=3.0, dual_step=2.0, margin=0.25
    )
    result = detoxify(net, loader, config, loader, progress=False)
    assert result.clean_weights == pytest.approx((3.0 - 2.0 * 0.25,), abs=1e-4)


def test_the_average_is_the_mean_from_its_first_epoch_on(net):
    average = Average(net, first=2)
    weight = net[3].weight
    for epoch, value in enumerate((100.0, 1.0, 2.0, 6.0), start=1):
        nn.init.constant_(weight, value)
        average.add(epoch)
    average.write(make_optimizer(net, D3Config(constraint=None)))
    assert torch.allclose(weight, torch.full_like(weight, 3.0))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_repair_ends_on_the_sphere_with_either_optimizer(optimizer, net, loader):
    config = D3Config(epochs=6, lr=0.01, optimizer=optimizer, beta2=0.99, averaging=0.5)
    made = make_optimizer(net, config)
    kinds = {"sgd": D3FusedSGD, "adamw": D3FusedAdamW}
    assert type(made) is kinds[optimizer]
    numbers = made.param_groups[0].get("betas", made.param_groups[0].get("momentum"))
    assert numbers == {"sgd": 0.9, "adamw": (0.9, 0.99)}[optimizer]
    start = net[3].weight.detach().clone()
    result = detoxify(net, loader, config, progress=False)
    end = result.model[3].weight
    torch.testing.assert_close(end.norm(), start.norm())
    assert (end - start).norm() > 0.5 * start.norm()


@pytest.mark.parametrize("decoupled", [True, False])
def test_the_push_of_adamw_is_decoupled_or_not(net, decoupled):
    config = D3Config(optimizer="adamw", decoupled_push=decoupled)
    assert make_optimizer(net, config).param_groups[0]["decoupled_push"] is decoupled


def test_an_adamw_recovery_keeps_the_distance(net, loader):
    config = D3Config(**{**HARD, "clean_weight": 1.0}, max_acc_drop=0.0, recovery=10)
    far = detoxify(net, loader, replace(config, recovery=0, optimizer="adamw"), loader)
    back = detoxify(net, loader, replace(config, optimizer="adamw"), loader)
    start = net[3].weight
    ways = [(result.model[3].weight - start).norm() for result in (far, back)]
    assert ways[1] >= 0.9 * ways[0] * (1 - 1e-5)


HARD = {"epochs": 5, "clean_weight": 0.0, "distillation": 0.0, "averaging": 0.0}


def test_a_recovery_brings_accuracy_back_and_keeps_the_way(net, loader):
    detector = nn.Sequential(*net)
    optimizer = torch.optim.Adam(detector.parameters(), 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(detector(loader[0][0]), loader[0][1]).backward()
        optimizer.step()
    start = detector[3].weight.detach().clone()
    far = detoxify(detector, loader, D3Config(**HARD), loader, progress=False)
    config = D3Config(**HARD, max_acc_drop=0.5, recovery=60)
    back = detoxify(detector, loader, config, loader, progress=False)
    lost = 100 * (1 - far.history[-1].val_accuracy)
    assert lost > 5
    assert back.acc_drop < lost
    assert (back.pushed, len(back.history)) == (5, 65)
    ways = [(result.model[3].weight - start).norm() for result in (far, back)]
    assert ways[1] >= 0.9 * ways[0] * (1 - 1e-5)


def test_a_repair_within_its_limit_needs_no_recovery(net, loader):
    config = D3Config(epochs=2, max_acc_drop=100.0, recovery=5)
    result = detoxify(net, loader, config, loader, progress=False)
    assert len(result.history) == result.pushed == 2
    assert result.acc_drop is not None


def test_a_recovery_that_does_not_help_is_not_taken(net, loader):
    config = D3Config(epochs=2, lr=0.0, warm_start="near", averaging=0.0)
    plain = detoxify(net, loader, config, loader, progress=False)
    limited = D3Config(
        epochs=2, lr=0.0, warm_start="near", averaging=0.0, max_acc_drop=0.0, recovery=2
    )
    result = detoxify(net, loader, limited, loader, progress=False)
    assert result.acc_drop == 0
    for one, other in zip(plain.model.parameters(), result.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "asks", [{"dual_step": 1.0}, {"patience": 3}, {"max_acc_drop": 1.0}, {"preset": "auto"}]
)
def test_what_is_decided_on_held_out_samples_needs_them(net, loader, asks):
    config = D3Config.auto() if "preset" in asks else D3Config(**asks)
    assert config.needs_held_out
    with pytest.raises(ValueError, match="val_loader is missing"):
        detoxify(net, loader, config, progress=False)


@pytest.mark.parametrize("p", [1.0, 3.0])
@pytest.mark.parametrize(
    ("radius", "unit"), [(None, "relative"), (0.5, "relative"), (0.7, "absolute")]
)
def test_a_sphere_of_another_norm_holds_through_training_and_averaging(net, p, radius, unit):
    config = D3Config(
        epochs=3, constraint_p=p, radius=radius, radius_unit=unit, backend="reference"
    )
    batch = [(torch.rand(8, 1, 2, 2), torch.arange(8) % 2)]
    repaired = detoxify(net, batch, config, progress=False).model
    expected = torch.linalg.vector_norm(net[3].weight.detach(), p) * (radius or 1.0)
    if unit == "absolute":
        expected = torch.tensor(radius)
    torch.testing.assert_close(torch.linalg.vector_norm(repaired[3].weight.detach(), p), expected)
    euclidean = torch.linalg.vector_norm(repaired[3].weight.detach())
    assert not torch.allclose(euclidean, torch.linalg.vector_norm(net[3].weight.detach()))


def test_a_ball_of_another_norm_scales_only_what_is_outside():
    weight = nn.Parameter(torch.tensor([3.0, -1.0]))
    config = D3Config(constraint="norm_ball", constraint_p=1.0)
    project = p_norm_projection([weight], config)
    weight.grad = torch.zeros(2)
    for values, expected in (([1.0, 1.0], [1.0, 1.0]), ([6.0, -2.0], [3.0, -1.0])):
        with torch.no_grad():
            weight.copy_(torch.tensor(values))
        project()
        assert weight.tolist() == expected


def test_weights_without_a_gradient_are_not_projected():
    weight = nn.Parameter(torch.tensor([3.0, -1.0]))
    project = p_norm_projection([weight], D3Config(constraint_p=1.0))
    with torch.no_grad():
        weight.mul_(2)
    project()
    assert weight.tolist() == [6.0, -2.0]


def test_the_distance_stays_right_after_a_projection_outside_the_kernel(net):
    config = D3Config(epochs=2, constraint_p=1.0, averaging=0.0)
    batch = [(torch.rand(8, 1, 2, 2), torch.arange(8) % 2)]
    result = detoxify(net, batch, config, progress=False)
    away = (result.model[3].weight - net[3].weight).detach().norm()
    assert result.history[-1].distance == pytest.approx(float(away), rel=1e-5)
