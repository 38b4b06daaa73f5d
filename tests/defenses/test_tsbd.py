"""TSBD: what unlearning changes is reset, and the fine-tuning has the penalised gradient."""

import copy

import pytest
import torch
from torch import nn

from d3fast.defenses import FineTuning
from d3fast.defenses.tsbd import TSBD, neuron_layers, reset_weights
from d3fast.testing.toys import batches, conv_model
from d3fast.training.metrics import evaluate


def test_the_share_of_neurons_is_over_all_layers_and_that_of_weights_within_each():
    first, second = torch.ones(3, 2), torch.ones(1, 4)
    changes = [torch.tensor([[5.0, 1.0], [0.0, 1.0], [4.0, 4.0]]), torch.tensor([[1.0, 2, 3, 4]])]
    reset_weights([first, second], changes, neurons=0.5, weights=0.5)
    assert first.tolist() == [[1, 1], [1, 1], [0, 1]]  # of a tie the first
    assert second.tolist() == [[1, 1, 0, 0]]


@pytest.mark.parametrize(("neurons", "weights"), [(0.0, 1.0), (1.0, 0.0)])
def test_a_share_of_0_resets_nothing(neurons, weights):
    weight = torch.ones(2, 3)
    reset_weights([weight], [torch.rand(2, 3)], neurons, weights)
    assert bool((weight == 1).all())


def test_filters_of_convolutions_are_neurons():
    weight, change = torch.ones(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    change[1, 2, 0, 1] = 1.0
    reset_weights([weight], [change], neurons=0.5, weights=1 / 12)
    assert weight[1, 2, 0, 1] == 0
    assert weight.sum() == 23


def test_the_head_and_frozen_layers_are_no_neurons():
    model = conv_model()
    assert neuron_layers(model) == [model[0], model[3]]
    model[3].weight.requires_grad_(False)
    assert neuron_layers(model) == [model[0]]
    model[0].weight.requires_grad_(False)
    with pytest.raises(ValueError, match="Sequential has no trainable linear or convolution layer"):
        neuron_layers(model)


def test_unlearning_ends_once_the_accuracy_is_gone_and_leaves_the_model_alone(planted):
    suspect, clean, _ = planted
    before = copy.deepcopy(suspect.state_dict())
    defense = TSBD(unlearn_lr=0.05, unlearn_epochs=50, unlearned=0.25)
    seen = []

    class Counted(list):
        def __iter__(self):
            seen.append(1)
            return super().__iter__()

    unlearned = defense._unlearn(suspect, Counted(clean), torch.device("cpu"), False)
    assert len(seen) < 50
    assert evaluate(unlearned, clean, None).acc < 0.3
    assert all(torch.equal(t, before[name]) for name, t in suspect.state_dict().items())


def test_a_planted_trigger_that_outlives_fine_tuning_is_removed(planted, trigger):
    suspect, clean, test = planted
    defense = TSBD(epochs=50, lr=0.1, neurons=0.5, weights=1.0)
    models = [
        one(suspect, clean, None, progress=False).model for one in (FineTuning(epochs=50), defense)
    ]
    tuned, after = (evaluate(m, test, trigger, target=0) for m in models)
    assert tuned.asr > 0.95
    assert after.asr < 0.5
    assert after.acc > 0.95


def test_without_reset_and_penalty_it_is_fine_tuning_bit_for_bit():
    defense = TSBD(epochs=2, unlearn_epochs=1, neurons=0.0, radius=0.0, share=0.0)
    without_dropout = nn.Sequential(*(m for m in conv_model() if not isinstance(m, nn.Dropout)))
    ours = defense(without_dropout, batches(), None, progress=False).model
    theirs = FineTuning(epochs=2)(without_dropout, batches(), None, progress=False).model
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_its_defaults():
    defense = TSBD()
    assert (defense.epochs, defense.lr, defense.momentum, defense.weight_decay) == (
        100,
        0.01,
        0.9,
        5e-4,
    )
    assert (defense.neurons, defense.weights) == (0.15, 0.7)
    assert (defense.radius, defense.share) == (0.05, 0.7)
