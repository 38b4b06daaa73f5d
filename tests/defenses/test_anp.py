"""ANP: on a network with a planted backdoor neuron, where the right answer is known."""

import copy

import pytest
import torch
from torch import nn

from d3fast.defenses import anp
from d3fast.defenses.anp import ANP, Neurons, prune
from d3fast.models.preact_resnet import PreActResNet
from d3fast.models.vit import VisionTransformer
from d3fast.training.metrics import Metrics, evaluate

PLANTED = 6  # hidden neurons 0..5 serve the three classes, two each
TRIGGER = 4  # the input that is 0 in clean samples
LOSS = nn.CrossEntropyLoss()


def _loader(seed=0, batches=4):
    """Inputs: one per class, one of noise, and the trigger's."""
    draw = torch.Generator().manual_seed(seed)
    loader = []
    for _ in range(batches):
        labels = torch.arange(60) % 3
        inputs = torch.zeros(60, 5)
        inputs[:, :4] = 0.3 * torch.randn(60, 4, generator=draw)
        inputs[:, :3] += 2 * torch.eye(3)[labels]
        inputs[:, 3] /= 0.3
        loader.append((inputs, labels))
    return loader


def _trigger(inputs):
    stamped = inputs.clone()
    stamped[:, TRIGGER] = 1.0
    return stamped


@torch.no_grad()
def _model():
    """Neuron 6 hardly ever fires on clean samples; the trigger makes it shout for class 0."""
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))
    for layer in (model[0], model[3]):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    for neuron in range(6):
        model[0].weight[neuron, neuron // 2] = 1.0
        model[3].weight[neuron // 2, neuron] = 2.0
    model[0].weight[PLANTED, 3] = 1.0
    model[0].weight[PLANTED, TRIGGER] = 20.0
    model[1].bias[PLANTED] = -2.0
    model[3].weight[0, PLANTED] = 8.0
    inputs = torch.cat([batch for batch, _ in _loader()])
    hidden = model[0](inputs)
    model[1].running_mean.copy_(hidden.mean(0))
    model[1].running_var.copy_(hidden.var(0))
    return model.eval()


def _asr(model):
    return evaluate(model, _loader(9), _trigger, target=0).asr


def _acc(model, seed=9):
    return evaluate(model, _loader(seed), None).acc


SHORT = ANP(steps=40, lr=0.2)


def test_the_planted_neuron_is_found_and_pruned_and_clean_accuracy_stays():
    model = _model()
    assert _asr(model) == 1.0
    assert _acc(model) > 0.95
    neurons = Neurons(copy.deepcopy(model))
    SHORT._search(neurons, _loader(), torch.device("cpu"), False)
    assert int(neurons.masks.argmin()) == PLANTED
    repaired = SHORT(model, _loader(), _loader(1), progress=False).model
    assert repaired[1].weight[PLANTED] == 0
    assert _asr(repaired) < 0.05
    assert _acc(repaired) >= _acc(model) - SHORT.max_acc_drop


def test_masks_stay_between_0_and_1():
    neurons = Neurons(_model())
    ANP(steps=20, lr=50.0)._search(neurons, _loader(), torch.device("cpu"), False)
    masks = neurons.masks.detach()
    assert bool(((masks >= 0) & (masks <= 1)).all())
    assert len(masks.unique()) > 1


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_perturbations_stay_within_eps_and_raise_the_loss(inner_steps):
    neurons = Neurons(_model())
    (inputs, labels), *_ = _loader()
    delta, xi = ANP(eps=0.3, inner_steps=inner_steps).perturbation(
        neurons, inputs, labels, LOSS, torch.Generator().manual_seed(0)
    )
    assert delta.shape == xi.shape == (7,)
    assert max(delta.abs().max(), xi.abs().max()) <= 0.3
    disturbed = LOSS(neurons.scores(inputs, neurons.masks + delta, xi), labels)
    assert disturbed > LOSS(neurons.scores(inputs, neurons.masks), labels)
    assert neurons.masks.grad is None


def test_scores_are_those_of_a_network_with_the_factors_written_in():
    model = _model()
    (inputs, _), *_ = _loader()
    draw = torch.Generator().manual_seed(0)
    factors, xi = torch.rand(7, generator=draw), torch.rand(7, generator=draw)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[1].weight.mul_(factors)
        twin[1].bias.mul_(1 + xi)
    torch.testing.assert_close(Neurons(model).scores(inputs, factors, xi), twin(inputs))


def test_without_perturbation_a_step_is_that_of_the_loss_itself_under_batch_statistics():
    model = _model()
    (inputs, labels), *_ = _loader(batches=1)
    neurons = Neurons(copy.deepcopy(model))
    history = ANP(eps=0.0, steps=1, lr=0.5)._search(
        neurons, _loader(batches=1), torch.device("cpu"), False
    )
    masks = torch.ones(7, requires_grad=True)
    hidden = model[0](inputs)
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + model[1].eps).sqrt()
    scores = model[3](torch.relu(masks * model[1].weight * hidden + model[1].bias))
    value = LOSS(scores, labels)
    value.backward()
    torch.testing.assert_close(neurons.masks.detach(), (1 - 0.5 * masks.grad).detach().clamp(0, 1))
    assert history[0].loss == pytest.approx(value.item(), rel=1e-5)


def test_nothing_but_weights_of_batch_norm_is_changed():
    model = _model()
    before = copy.deepcopy(model.state_dict())
    repaired = SHORT(model, _loader(), _loader(1), progress=False).model
    for name, tensor in repaired.state_dict().items():
        if name != "1.weight":
            assert torch.equal(tensor, before[name]), name
    kept = repaired[1].weight != 0
    assert torch.equal(repaired[1].weight[kept], model[1].weight[kept])
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.grad is None for p in repaired.parameters())
    assert repaired[1].track_running_stats
    assert not any(module.training for module in repaired.modules())


def _searched(sums, steps=10):
    neurons = Neurons(_model())
    neurons.sums, neurons.steps = torch.tensor(sums), steps
    return neurons


@pytest.mark.parametrize("max_acc_drop", [0.0, 0.05, 0.4, 1.0])
def test_the_most_channels_go_that_held_out_accuracy_allows_smallest_mean_mask_first(max_acc_drop):
    neurons = _searched([3.1, 3.2, 6.1, 6.2, 9.8, 9.9, 0.1])  # a class after the other
    before = _acc(neurons.model, 1)
    count = prune(neurons, _loader(1), max_acc_drop)
    assert before - _acc(neurons.model, 1) <= max_acc_drop + 1e-9
    order = [6, 0, 1, 2, 3, 4, 5]
    drops = []
    for tried in range(8):
        other = Neurons(_model())
        other.write(torch.tensor([float(i not in order[:tried]) for i in range(7)]))
        drops.append(before - _acc(other.model, 1))
    assert count == max(n for n, drop in enumerate(drops) if drop <= max_acc_drop + 1e-9)
    assert sorted(order[:count]) == (neurons.model[1].weight == 0).nonzero()[:, 0].tolist()


def test_a_number_that_costs_too_much_does_not_end_the_pruning(monkeypatch):
    found = iter([90, 80, 90, 85])  # the suspect, then one, two, three channels
    monkeypatch.setattr(anp, "evaluate", lambda *_, **__: Metrics(next(found), 100))
    assert prune(_searched([1.0, 2.0, 3.0, 10.0, 10.0, 10.0, 10.0]), [], 0.01) == 2


def test_three_numbers_in_a_row_that_cost_too_much_end_the_pruning(monkeypatch):
    found = iter([90, 90, 80, 80, 80, 90])
    monkeypatch.setattr(anp, "evaluate", lambda *_, **__: Metrics(next(found), 100))
    assert prune(_searched([1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 10.0]), [], 0.01) == 1
    assert next(found) == 90


def test_channels_whose_masks_never_fell_stay():
    neurons = _searched([10.0] * 6 + [2.0])
    assert prune(neurons, _loader(1), 1.0) == 1


def test_where_every_number_costs_too_much_nothing_is_pruned(monkeypatch):
    neurons = _searched([0.0, 0.1, 10.0, 10.0, 10.0, 10.0, 10.0])
    found = iter([90, 80, 70])
    monkeypatch.setattr(anp, "evaluate", lambda *_, **__: Metrics(next(found), 100))
    assert prune(neurons, [], 0.02) == 0
    assert torch.equal(neurons.model[1].weight, _model()[1].weight)


def test_masks_that_are_tied_at_0_differ_in_their_sums():
    neurons = Neurons(_model())
    for closed in (1, 3):
        with torch.no_grad():
            neurons.masks[:closed] = -0.5
        neurons.clip_and_add()
    assert neurons.masks.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert neurons.sums.tolist() == [0, 1, 1, 2, 2, 2, 2]
    assert neurons.steps == 2


@pytest.mark.parametrize(("steps", "passes"), [(1, 1), (3, 1), (4, 1), (5, 2), (9, 3)])
def test_it_takes_so_many_batches_and_records_every_pass(steps, passes):
    seen = []
    watched = ANP(steps=steps, on_epoch=lambda e, m: seen.append((e, m.training)))
    clean = _Watched(_loader(batches=4))
    history = watched(_model(), clean, _loader(1), progress=False).history
    assert clean.batches_read == steps + 4  # without a length they are counted first
    assert [e.epoch for e in history] == list(range(1, passes + 1))
    assert [(e, False) for e in history] == seen
    assert all((e.val_accuracy, e.lr) == (None, 0.01) for e in history)
    assert all(0 <= e.accuracy <= 1 for e in history)


class _Watched:
    """A loader that does not know its length."""

    def __init__(self, batches):
        self.batches, self.batches_read = batches, 0

    def __iter__(self):
        for batch in self.batches:
            self.batches_read += 1
            yield batch


def test_on_epoch_gets_the_model_under_its_masks():
    weights = []
    watched = ANP(
        steps=40, lr=0.2, on_epoch=lambda _, m: weights.append(m[1].weight.detach().clone())
    )
    watched(_model(), _loader(), _loader(1), progress=False)
    assert 0 <= weights[-1][PLANTED] < weights[0][PLANTED] < 1


def test_a_seed_gives_the_same_bits_and_another_seed_others():
    def masks(seed):
        neurons = Neurons(_model())
        ANP(steps=3, seed=seed)._search(neurons, _loader(), torch.device("cpu"), False)
        return neurons.masks.detach()

    first, second, other = masks(0), masks(0), masks(1)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_dropout_is_off_and_the_global_generator_untouched():
    plain = _model()
    with_dropout = nn.Sequential(*plain[:3], nn.Dropout(0.5), plain[3])
    state = torch.get_rng_state()
    first, second = (
        SHORT(model, _loader(), _loader(1), progress=False) for model in (plain, with_dropout)
    )
    assert first.history == second.history
    assert torch.equal(torch.get_rng_state(), state)


def test_a_norm_whose_weight_is_frozen_is_left_alone():
    model = nn.Sequential(nn.BatchNorm1d(5), *_model()).eval()
    model[0].weight.requires_grad_(False)
    assert len(Neurons(model).masks) == 7
    model[2].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="Sequential has no batch norm with a trainable weight"):
        SHORT(model, _loader(), _loader(1), progress=False)


def test_it_prunes_convolutional_networks():
    model = PreActResNet(3, 1, width=4, blocks=(1, 1))
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    loader = [(images, torch.arange(12) % 3)]
    result = ANP(steps=2, max_acc_drop=1.0)(model, loader, loader, progress=False)
    pruned = [m for m in result.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert any(bool((m.weight == 0).any()) for m in pruned)


def test_a_model_without_batch_norm_is_refused():
    model = VisionTransformer(3, 1, image_size=8, patch=4, width=8, depth=1, heads=2)
    with pytest.raises(ValueError, match="VisionTransformer has no batch norm with a trainable"):
        SHORT(model, _loader(), _loader(1), progress=False)
    model = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3, affine=False))
    with pytest.raises(ValueError, match="Sequential has no batch norm with a trainable"):
        SHORT(model, _loader(), _loader(1), progress=False)


@pytest.mark.parametrize("empty", [[], iter([])], ids=["list", "iterator"])
def test_a_loader_that_yields_nothing_is_refused(empty):
    with pytest.raises(ValueError, match="clean_loader yields nothing"):
        SHORT(_model(), empty, _loader(1), progress=False)


def test_its_defaults_are_published_but_for_the_budget_of_accuracy():
    defense = ANP()
    assert (defense.eps, defense.alpha, defense.inner_steps) == (0.4, 0.2, 1)
    assert (defense.lr, defense.momentum, defense.steps) == (0.01, 0.9, 2000)
    assert defense.max_acc_drop == 0.02
