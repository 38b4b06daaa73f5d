"""FinePruning: what sleeps on clean samples is silenced, as far as held-out samples allow."""

import copy
import dataclasses
import logging

import pytest
import torch
from torch import nn

from d3fast import D3Config
from d3fast.defenses.d3 import D3
from d3fast.defenses.fine_pruning import FinePruning, _activity, _run_before, _writers
from d3fast.defenses.fine_tuning import FineTuning
from d3fast.defenses.pipeline import Pipeline
from d3fast.models import PreActResNet, VisionTransformer
from d3fast.models.vgg import VGG

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


class Residual(nn.Module):
    """Post-activation blocks of four channels: relu(norm(conv(relu(norm(conv(x))))) + x)."""

    def __init__(self, blocks):
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(4, 4, 1, bias=False),
                nn.BatchNorm2d(4),
                nn.ReLU(),
                nn.Conv2d(4, 4, 1, bias=False),
                nn.BatchNorm2d(4),
            )
            for _ in range(blocks)
        )
        self.fc = nn.Linear(4, 3)

    def forward(self, images):
        x = torch.relu(self.stem_norm(self.stem(images)))
        for block in self.blocks:
            x = torch.relu(block(x) + x)
        return self.fc(x.mean(dim=(2, 3)))


def _initialised(make, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make().eval()


def _written_by(model, head, size=8):
    images = torch.rand(6, 1, size, size, generator=torch.Generator().manual_seed(0))
    return _writers(model, head, images)


@pytest.mark.parametrize("seed", range(3))
def test_behind_a_shortcut_every_layer_that_writes_the_stream_loses_the_row(seed):
    model = _initialised(lambda: Residual(3), seed)
    assert _written_by(model, model.fc) == _stream(model)[::-1]
    defense = FinePruning(epochs=1, lr=0.01, max_acc_drop=1.0)
    repaired = defense(model, _clean(), _clean(seed=1), progress=False).model
    silent = [_silent(norm) for norm in _stream(repaired)]
    assert len(silent[0]) == 3
    assert silent == [silent[0]] * 4
    assert not any(_silent(block[1]) for block in repaired.blocks)


def _stream(model):
    return [model.stem_norm, *(block[4] for block in model.blocks)]


def test_looking_for_the_layer_changes_no_weight():
    model = _initialised(lambda: Residual(3))
    before = copy.deepcopy(model.state_dict())
    _written_by(model, model.fc)
    assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("make", "writer"),
    [
        (lambda: PreActResNet(3, 1, width=4, blocks=(1, 1)), lambda m: m.norm),
        (lambda: VGG(3, 1, stages=((4, 1), (8, 2))), lambda m: m.layers[-3]),
        (
            lambda: VisionTransformer(3, 1, image_size=8, patch=4, width=8, depth=1, heads=2),
            lambda m: m.norm,
        ),
    ],
    ids=["PreActResNet", "VGG", "ViT"],
)
def test_the_last_norm_writes_the_head_s_inputs(make, writer):
    model = _initialised(make)
    assert _written_by(model, model.head) == [writer(model)]
    images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    loader = [(images, torch.arange(9) % 3)]
    defense = FinePruning(epochs=1, max_acc_drop=1.0)
    repaired = defense(model, loader, loader, progress=False).model
    assert len(_silent(writer(repaired))) == model.head.in_features - 1


def test_batch_norm_is_taken_before_its_convolution():
    model = _initialised(
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 3, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
    )
    assert _written_by(model, model[3]) == [model[1]]


def test_a_norm_without_weights_leaves_it_to_the_layer_in_front():
    model = _initialised(
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(64, 5), nn.BatchNorm1d(5, affine=False), nn.Linear(5, 3)
        )
    )
    assert _written_by(model, model[3]) == [model[1]]


def test_layers_after_the_head_are_not_looked_at():
    model = _initialised(
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Linear(3, 3), nn.BatchNorm1d(3))
    )
    images = torch.rand(2, 1, 8, 8)
    assert _run_before(model, model[2], images, 3) == [model[1]]


class Rolled(nn.Module):
    def forward(self, features):
        return features.roll(1, dims=1)


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),
        nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 4), Rolled(), nn.Linear(4, 3)),
    ],
    ids=["nothing in front", "a flattened map", "channels out of place"],
)
def test_a_model_without_a_layer_per_channel_is_refused(model):
    with pytest.raises(ValueError, match=r"needs a layer that writes the \d inputs of the head"):
        _prune(model)


def test_held_out_samples_are_needed():
    with pytest.raises(ValueError, match="FinePruning needs clean_val, held-out clean samples"):
        FinePruning(epochs=1)(_backdoored(), _clean(), None, progress=False)


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


@pytest.mark.parametrize(
    ("option", "value", "error_text"),
    [
        ("epochs", 0, "epochs must be an integer >= 1, got 0"),
        ("max_acc_drop", -0.1, r"max_acc_drop must be finite and >= 0, got -0\.1"),
        ("max_acc_drop", 10, "max_acc_drop must be <= 1, got 10"),
        ("step", 0.0, r"step must be > 0, got 0\.0"),
        ("step", 1.5, r"step must be <= 1, got 1\.5"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name_and_value(option, value, error_text):
    with pytest.raises(ValueError, match=error_text):
        dataclasses.replace(FinePruning(), **{option: value})
