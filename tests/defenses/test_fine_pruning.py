"""FinePruning: inactive channels are pruned as far as held-out accuracy allows."""

import copy
import logging

import pytest
import torch
from torch import nn

from d3fast import D3Config
from d3fast.defenses.d3 import D3
from d3fast.defenses.fine_pruning import FinePruning, _activity
from d3fast.defenses.fine_tuning import FineTuning
from d3fast.defenses.pipeline import Pipeline

TARGET = 2


def _clean(count=48, seed=0):
    """The brightest of the first three pixels is the class; the fourth is dark."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    pixels = 0.3 * torch.rand(count, 3, generator=draw)
    pixels[torch.arange(count), labels] += 0.6
    images = torch.cat([pixels, torch.zeros(count, 1)], dim=1)
    return [(images.view(-1, 1, 2, 2), labels)]


def _triggered():
    images, labels = _clean()[0]
    images = images.clone()
    images[:, 0, 1, 1] = 1.0
    return images[labels != TARGET]


def _backdoored():
    """Channels 0 to 2 see a pixel each, 3 and 4 faintly repeat two of them, 5 is the backdoor."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[1].weight[:3, :3] = torch.eye(3)
        model[1].weight[3, 0] = model[1].weight[4, 1] = 0.1
        model[1].weight[5, 3], model[1].bias[5] = 10.0, -1.0
        model[3].weight[:, :3] = 10 * torch.eye(3)
        model[3].weight[TARGET, 5] = 100.0
    return model


def _asr(model):
    with torch.no_grad():
        return float((model(_triggered()).argmax(dim=1) == TARGET).float().mean())


def _accuracy(model):
    images, labels = _clean(seed=1)[0]
    with torch.no_grad():
        return float((model(images).argmax(dim=1) == labels).float().mean())


def _silent(layer):
    """The rows that are zero in weight and bias."""
    weight = (layer.weight.flatten(1) if layer.weight.ndim > 1 else layer.weight[:, None]) == 0
    return (weight.all(dim=1) & (layer.bias == 0)).nonzero().flatten().tolist()


def _prune(model, **options):
    options = {"epochs": 1, "lr": 0.0, "max_acc_drop": 0.0, **options}
    return FinePruning(**options)(model, _clean(), _clean(seed=1), progress=False).model


def test_its_defaults_are_those_of_the_published_comparisons():
    defense = FinePruning()
    assert (defense.epochs, defense.lr, defense.momentum, defense.weight_decay) == (
        100,
        0.01,
        0.9,
        5e-4,
    )
    assert (defense.max_acc_drop, defense.step) == (0.1, 0.01)


def test_a_planted_backdoor_goes_and_stays_gone():
    model = _backdoored()
    assert (_asr(model), _accuracy(model)) == (1.0, 1.0)
    repaired = _prune(model, epochs=10, lr=0.01)
    plain = FineTuning(epochs=10)(model, _clean(), None, progress=False).model
    assert (_asr(repaired), _accuracy(repaired)) == (0.0, 1.0)
    assert _asr(plain) == 1.0


def test_pruning_stops_where_held_out_accuracy_would_fall():
    """The backdoor and both faint copies are free; the first real channel is not."""
    assert _silent(_prune(_backdoored())[1]) == [3, 4, 5]


def test_a_greater_allowance_prunes_more_but_never_everything():
    counts = [len(_silent(_prune(_backdoored(), max_acc_drop=d)[1])) for d in (0.0, 0.5, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] == 3
    assert counts[2] == 5


def test_a_drop_of_just_the_allowance_is_allowed():
    model = _backdoored()
    assert len(_silent(_prune(model, max_acc_drop=1 / 3)[1])) == 4
    assert len(_silent(_prune(model, max_acc_drop=0.33)[1])) == 3


def test_the_least_active_channels_go_first():
    model = _backdoored()
    _, activity = _activity(model, model[3], _clean(), torch.device("cpu"))
    images, _ = _clean()[0]
    torch.testing.assert_close(activity, model[:3](images).abs().mean(dim=0).double().detach())
    assert activity.argmin() == 5


def test_activity_does_not_depend_on_how_samples_are_batched():
    model, (images, labels) = _backdoored(), _clean()[0]
    parts = [(images[a:b], labels[a:b]) for a, b in ((0, 30), (30, 30), (30, 48))]
    whole, split = (
        _activity(model, model[3], loader, torch.device("cpu"))[1] for loader in (_clean(), parts)
    )
    torch.testing.assert_close(whole, split)


def test_a_step_takes_its_share_of_the_channels_and_is_taken_back_whole():
    """Steps of half the channels: the first three go, the next two would cost accuracy."""
    assert _silent(_prune(_backdoored(), step=0.5)[1]) == [3, 4, 5]
    assert _silent(_prune(_backdoored(), step=0.67)[1]) == []


def test_held_out_samples_decide_and_training_samples_do_not():
    """Held-out samples of one class: its channel alone must stay, although all are in use."""
    images, labels = _clean(seed=1)[0]
    one = [(images[labels == 1], labels[labels == 1])]
    defense = FinePruning(epochs=1, lr=0.0, max_acc_drop=0.0)
    repaired = defense(_backdoored(), _clean() + one, one, progress=False).model
    assert _silent(repaired[1]) == [0, 2, 3, 4, 5]


def test_pruned_channels_are_still_zero_after_fine_tuning_and_the_others_move():
    model = _backdoored()
    repaired = _prune(model, epochs=5, lr=0.1)
    assert _silent(repaired[1]) == [3, 4, 5]
    assert not torch.equal(repaired[1].weight[:3], model[1].weight[:3])
    assert not torch.equal(repaired[3].weight, model[3].weight)


def test_rows_of_the_signed_kind_stay_zero_although_gradients_reach_them():
    """Without a ReLU nothing but the defence keeps them there."""
    model = _backdoored()
    model[2] = nn.Identity()
    repaired = _prune(model, epochs=5, lr=0.1, max_acc_drop=0.7)
    assert _silent(repaired[1])


def test_names_and_order_of_the_weights_are_those_of_the_suspect_in_every_epoch():
    model = _backdoored()
    seen = []
    _prune(model, epochs=2, on_epoch=lambda epoch, m: seen.append(copy.deepcopy(m.state_dict())))
    assert [list(s) for s in seen] == [list(model.state_dict())] * 2


def test_a_model_can_be_copied_after_every_epoch():
    kept = []
    repaired = _prune(_backdoored(), lr=0.1, on_epoch=lambda _, m: kept.append(copy.deepcopy(m)))
    assert torch.equal(kept[-1][1].weight, repaired[1].weight)


def test_no_hook_is_left_behind():
    repaired = _prune(_backdoored())
    for module in repaired.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not any(p._backward_hooks for p in repaired.parameters())


def test_a_head_initialised_anew_finds_the_channels_silent():
    d3 = D3(D3Config(epochs=3, warm_start="random"))
    pipeline = Pipeline(FinePruning(epochs=1, lr=0.0, max_acc_drop=0.0), d3)
    repaired = pipeline(_backdoored(), _clean(), _clean(seed=1), progress=False).model
    assert _silent(repaired[1]) == [3, 4, 5]
    assert bool((repaired[3].weight[:, 5] != 0).all())


def test_frozen_weights_stay_frozen_and_the_rest_of_them_in_place():
    model = _backdoored()
    model[1].requires_grad_(False)
    repaired = _prune(model, epochs=2, lr=0.1)
    assert _silent(repaired[1]) == [3, 4, 5]
    assert torch.equal(repaired[1].weight[:3], model[1].weight[:3])
    assert not repaired[1].weight.requires_grad


def test_the_log_says_how_many_channels_went(caplog):
    with caplog.at_level(logging.INFO, logger="d3fast"):
        _prune(_backdoored())
    assert "pruned 3 of 6 channels; accuracy was 1.0000 before" in caplog.text


def test_a_step_reads_the_held_out_samples_once():
    class Watched(list):
        passes = 0

        def __iter__(self):
            self.passes += 1
            return super().__iter__()

    train, held_out = Watched(_clean()), Watched(_clean(seed=1))
    defense = FinePruning(epochs=2, lr=0.0, max_acc_drop=0.0)
    defense(_backdoored(), train, held_out, progress=False)
    # Before pruning, three channels that may go and one that may not, two epochs.
    assert (train.passes, held_out.passes) == (1 + 2, 1 + 4 + 2)


def test_empty_loaders_are_refused_by_name():
    with pytest.raises(ValueError, match="clean_loader yields nothing"):
        FinePruning(epochs=1)(_backdoored(), [], _clean(), progress=False)
    with pytest.raises(ValueError, match="val_loader yields nothing"):
        FinePruning(epochs=1)(_backdoored(), _clean(), [], progress=False)


def test_nan_in_the_samples_is_named():
    images, labels = _clean()[0]
    images = images.clone()
    images[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="become NaN or inf on clean_loader"):
        FinePruning(epochs=1)(_backdoored(), [(images, labels)], _clean(), progress=False)


def test_a_first_batch_of_equal_samples_says_nothing():
    images, labels = _clean()[0]
    with pytest.raises(ValueError, match="first batch of clean_train on which"):
        FinePruning(epochs=1)(_backdoored(), [(images[:1], labels[:1])], _clean(), progress=False)
