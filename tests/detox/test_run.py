"""``detoxify``: the method by hand, what it promises, and what it refuses."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from d3fast import CleanLoss, D3Config, D3FusedSGD, detoxify, param_groups
from d3fast.runtime.seeding import generator, global_seed


def _loader(sizes=(8, 8), classes=3, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(n, 1, 2, 2, generator=draw), torch.randint(0, classes, (n,), generator=draw))
        for n in sizes
    ]


class Net(nn.Module):
    """Features with batch norm under a head of three classes."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
            self.head = nn.Linear(6, 3)

    def forward(self, images):
        return self.head(self.body(images))


def _detoxify(model, loader=None, config=None, **options):
    return detoxify(model, loader or _loader(), config, progress=False, **options)


def _same_bits(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("recovery", [False, True])
def test_frozen_batch_norm_keeps_its_statistics_but_trains_its_weights(recovery):
    model = Net()
    config = D3Config(epochs=3, lr=0.1, batch_norm="frozen")
    if recovery:
        config = replace(config, max_acc_drop=0.0, recovery=2)
    held_out = _loader() if recovery else None
    ours, theirs = model.body[2], _detoxify(model, None, config, val_loader=held_out).model.body[2]
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_var, theirs.running_var)
    assert not torch.equal(ours.weight, theirs.weight)
    trained = _detoxify(model, None, replace(config, batch_norm="train"), val_loader=held_out)
    assert not torch.equal(ours.running_mean, trained.model.body[2].running_mean)


@pytest.mark.parametrize(
    "config",
    [
        D3Config(epochs=4, averaging=0.0),
        D3Config.paper(epochs=4, seed=3),
        D3Config.authors(epochs=4),
        D3Config.authors(
            epochs=4,
            constraint="distance_shell",
            radius=(0.5, 2.0),
            scope="group",
            track="linear",
            weight_decay=1e-3,
            momentum=0.5,
            schedule="constant",
            distance_weight=0.3,
            normalize=False,
            warm_start="noise",
        ),
        D3Config.authors(
            epochs=4,
            constraint="distance_floor",
            radius=0.1,
            radius_unit="absolute",
            distance_p=1.0,
            track="body",
            warm_start="near",
        ),
    ],
    ids=["default", "paper", "authors", "shell", "floor"],
)
def test_a_repair_is_this_loop_around_d3fusedsgd(config):
    model = Net()
    result = _detoxify(model, config=config)
    normalize = config.normalize and config.clean_weight > 1
    scale = 1 / (config.clean_weight + 1) if normalize else 1.0
    optimizer = D3FusedSGD(
        param_groups(model, config.track),
        config.lr,
        config.momentum,
        weight_decay=config.weight_decay,
        distance_weight=scale * config.distance_weight,
        distance_p=config.distance_p,
        scope=config.scope,
        constraint=config.constraint,
        radius=config.radius,
        radius_unit=config.radius_unit,
    )
    optimizer.warm_start(config.warm_start, generator(config.seed, "warm start"))
    loss = CleanLoss(config.epsilon, scale * config.clean_weight, config.reduction)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    suspect, share = Net().eval(), config.distillation
    model.train()
    for _ in range(4):
        for images, labels in _loader():
            optimizer.zero_grad()
            scores = model(images)
            soft = loss.soft(scores, suspect(images))
            ((1 - share) * loss(scores, labels) + share * soft).backward()
            optimizer.step()
        if config.schedule == "cosine":
            schedule.step()
    assert _same_bits(result.model, model)


def test_a_repair_is_the_objective_of_the_paper_by_autograd_and_a_sphere_by_hand():
    """The whole loss, distance included, goes through autograd and plain SGD in float64."""
    weight, epsilon, lr, momentum = 10.0, 0.1, 0.05, 0.9
    model = Net().double()
    loader = [(x.double(), y) for x, y in _loader()]
    config = D3Config.authors(
        clean_weight=weight,
        epsilon=epsilon,
        lr=lr,
        momentum=momentum,
        epochs=5,
        warm_start="far",
        schedule="constant",
        normalize=True,
    )
    result = _detoxify(model, loader, config)
    start = model.head.weight.detach().clone()
    with torch.no_grad():
        model.head.weight.neg_()
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum)
    model.train()
    for _ in range(5):
        for images, labels in loader:
            optimizer.zero_grad()
            entropies = nn.functional.cross_entropy(model(images), labels, reduction="none")
            hinge = (entropies - epsilon).clamp(min=0).mean()
            objective = weight * hinge - (model.head.weight - start).norm()
            (objective / (weight + 1)).backward()
            optimizer.step()
            with torch.no_grad():
                model.head.weight.mul_(start.norm() / model.head.weight.norm())
    for (name, mine), theirs in zip(
        result.model.state_dict().items(), model.state_dict().values(), strict=True
    ):
        assert torch.allclose(mine.double(), theirs.double(), rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("warm_start", ["near", "middle", "far", "noise", "random"])
def test_the_head_stays_on_the_sphere_through_where_it_started(warm_start):
    model = Net()
    result = _detoxify(model, config=D3Config(epochs=5, lr=0.1, warm_start=warm_start))
    assert result.model.head.weight.norm().item() == pytest.approx(
        model.head.weight.norm().item(), rel=1e-6
    )


def test_a_ball_and_a_shell_hold_too():
    model = Net()
    start = model.head.weight.detach()
    ball = _detoxify(model, config=D3Config.paper(epochs=5, lr=0.3, radius=0.8))
    assert ball.model.head.weight.norm() <= 0.8 * start.norm() * (1 + 1e-6)
    shell = D3Config(epochs=5, lr=0.3, constraint="distance_shell", radius=(1.0, 1.1))
    travelled = (_detoxify(model, config=shell).model.head.weight - start).norm() / start.norm()
    assert 1.0 - 1e-6 <= travelled <= 1.1 + 1e-6


def test_the_weights_of_the_last_epochs_are_averaged():
    config = D3Config(epochs=5, averaging=0.6, constraint=None, schedule="constant")
    seen = []
    result = _detoxify(Net(), config=config, on_epoch=lambda _, m: seen.append(copy.deepcopy(m)))
    for name, averaged in result.model.state_dict().items():
        if averaged.is_floating_point():
            mean = torch.stack([m.state_dict()[name] for m in seen[2:]]).mean(dim=0)
            torch.testing.assert_close(averaged, mean, msg=name)


def test_averaging_changes_nothing_before_the_end():
    config = D3Config(epochs=4, averaging=0.5)
    history = _detoxify(Net(), config=config).history
    assert history == _detoxify(Net(), config=replace(config, averaging=0.0)).history


def test_the_average_is_put_back_onto_the_sphere():
    model = Net()
    result = _detoxify(model, config=D3Config(epochs=4, averaging=1.0, lr=0.1))
    torch.testing.assert_close(result.model.head.weight.norm(), model.head.weight.norm())


def test_averaging_one_epoch_keeps_the_last():
    config = D3Config(epochs=4, averaging=0.25)
    last = _detoxify(Net(), config=replace(config, averaging=0.0)).model
    averaged = _detoxify(Net(), config=config).model
    for mine, theirs in zip(averaged.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_dual_ascent_raises_lambda_while_the_held_out_loss_is_above_its_bound():
    held_out = _loader(seed=1)
    config = D3Config(epochs=1, epsilon=0.1, clean_weight=2.0, normalize=False)
    two = replace(config, epochs=2, schedule="constant")
    # With one batch per epoch, the loss of the second is the weighted hinge after the first.
    one_batch = _loader(sizes=(8,))
    ascent, plain = (
        _detoxify(Net(), one_batch, replace(two, dual_step=step), val_loader=held_out)
        for step in (3.0, 0.0)
    )
    first = _detoxify(Net(), one_batch, config).model.eval()
    losses = [nn.functional.cross_entropy(first(x), y).item() for x, y in held_out]
    raised = 2.0 + 3.0 * (sum(losses) / 2 - 0.1)
    assert raised > 2.0
    assert ascent.history[1].loss / plain.history[1].loss == pytest.approx(raised / 2.0, rel=1e-4)


def test_the_distance_recorded_is_that_of_the_head_from_its_start():
    model = Net()
    heads = []
    result = _detoxify(
        model, config=D3Config(epochs=3), on_epoch=lambda _, m: heads.append(m.head.weight.clone())
    )
    start = model.head.weight
    assert [e.distance for e in result.history] == pytest.approx(
        [(head - start).norm().item() for head in heads], rel=1e-5
    )
    assert result.history[0].distance > start.norm()


def test_the_learning_rate_goes_down_the_cosine_or_stays():
    cosine = _detoxify(Net(), config=D3Config.authors(epochs=4, lr=0.02)).history
    assert [e.lr for e in cosine] == pytest.approx(
        [0.02, 0.01 + 0.01 * 0.5**0.5, 0.01, 0.01 - 0.01 * 0.5**0.5]
    )
    constant = _detoxify(Net(), config=D3Config(epochs=4, lr=0.02, schedule="constant")).history
    assert [e.lr for e in constant] == [0.02] * 4


def test_the_model_handed_in_is_not_touched():
    model = Net().train()
    model.body[2].eval()
    model(_loader()[0][0]).sum().backward()
    before = copy.deepcopy(model.state_dict())
    grads = [p.grad.clone() for p in model.parameters()]
    result = _detoxify(model, config=D3Config(epochs=2))
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), before.values(), strict=True)
    )
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert model.training
    assert not model.body[2].training
    mine = {p.data_ptr() for p in model.parameters()}
    assert not mine & {p.data_ptr() for p in result.model.parameters()}


def test_the_repaired_model_is_another_one_in_eval_mode_with_no_gradients():
    model = Net()
    result = _detoxify(model, config=D3Config(epochs=2))
    assert not any(module.training for module in result.model.modules())
    assert all(p.grad is None for p in result.model.parameters())
    assert not torch.equal(result.model.head.weight, model.head.weight)
    assert not torch.equal(result.model.body[1].weight, model.body[1].weight)


def test_frozen_weights_stay_where_they_are():
    model = Net()
    model.body[1].weight.requires_grad_(False)
    result = _detoxify(model, config=D3Config(epochs=2))
    assert torch.equal(result.model.body[1].weight, model.body[1].weight)
    assert not torch.equal(result.model.body[2].weight, model.body[2].weight)


def test_two_runs_give_the_same_bits_whatever_the_global_seed():
    config = D3Config(epochs=3, warm_start="random")
    torch.manual_seed(1)
    first = _detoxify(Net(), config=config)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = _detoxify(Net(), config=config)
    assert _same_bits(first.model, second.model)
    assert first.history == second.history
    assert torch.equal(torch.get_rng_state(), state)


def test_the_seed_draws_the_warm_start():
    first, other = (
        _detoxify(Net(), config=D3Config(epochs=1, warm_start="random", seed=seed))
        for seed in (0, 1)
    )
    assert not _same_bits(first.model, other.model)


def test_held_out_data_is_recorded_and_changes_nothing():
    without = _detoxify(Net(), config=D3Config(epochs=3))
    held_out = _loader((7,), seed=1)
    result = _detoxify(Net(), config=D3Config(epochs=3), val_loader=held_out)
    assert _same_bits(without.model, result.model)
    images, labels = held_out[0]
    right = (result.model(images).argmax(dim=1) == labels).float().mean().item()
    assert result.history[-1].val_accuracy == pytest.approx(right)
    assert [e.val_accuracy for e in without.history] == [None] * 3


def test_the_result_says_how_it_was_made():
    config = D3Config(epochs=2)
    result = _detoxify(Net(), config=config)
    assert result.config is config
    assert [e.epoch for e in result.history] == [1, 2]
    assert 0 < result.seconds < 60


def test_without_a_config_the_defaults_are_taken():
    assert _detoxify(Net()).config == D3Config()


def _spoiled(part, value):
    loader = _loader()
    loader[1][part].view(-1)[5] = value
    return loader


@pytest.mark.parametrize(
    ("loader", "error_text"),
    [
        (_spoiled(0, torch.nan), "clean_loader holds NaN or inf in batch 2 of epoch 1"),
        (_spoiled(0, torch.inf), "clean_loader holds NaN or inf in batch 2 of epoch 1"),
        (_spoiled(1, 3), r"clean_loader holds label 3 in batch 2 .* classes 0\.\.2"),
        (_spoiled(1, -1), r"clean_loader holds label -1 in batch 2 .* classes 0\.\.2"),
        (iter([]), "clean_loader yields nothing"),
        ([{"pixel_values": torch.rand(4, 1, 2, 2), "labels": torch.zeros(4)}], "class indices"),
        ((batch for batch in _loader()), "clean_loader yields nothing; a generator"),
    ],
    ids=["NaN", "inf", "label too high", "label negative", "empty", "dicts", "generator"],
)
def test_bad_clean_data_gives_one_error_and_leaves_the_model_alone(loader, error_text):
    model = Net()
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=error_text):
        _detoxify(model, loader, D3Config(epochs=2))
    assert _same_bits(model, before)
    assert model.training


def test_a_model_that_is_broken_already_is_refused_by_the_name_of_its_weight():
    model = Net()
    with torch.no_grad():
        model.head.weight[1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"the model's head\.weight holds NaN or inf$"):
        _detoxify(model)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device must be"):
        _detoxify(Net(), device="gpu")


@pytest.mark.parametrize(
    ("model", "track", "error_text"),
    [
        (Net(), "nothing like this", "track='nothing like this' selects no trainable parameter"),
        (Net(), "(", r"track='\(' is no valid regular expression"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4)), "head", "no linear layer"),
    ],
)
def test_nothing_to_track_is_an_error(model, track, error_text):
    with pytest.raises(ValueError, match=error_text):
        _detoxify(model, config=D3Config(track=track))


def test_dropout_and_a_loader_that_shuffles_follow_the_seed():
    data = torch.utils.data.TensorDataset(torch.rand(32, 4), torch.arange(32) % 2)
    with global_seed(0):
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    weights = []
    for seed in (1, 1, 2):
        torch.rand(3)  # what the process did before must not matter
        loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)
        config = D3Config(epochs=2, seed=seed, warm_start="far")
        weights.append(detoxify(model, loader, config, progress=False).model[2].weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
