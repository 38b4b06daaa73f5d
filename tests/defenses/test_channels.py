"""Channels: the layers that write the head's inputs, in every kind of network."""

import copy

import pytest
import torch
from torch import nn

from d3fast.defenses.channels import execution_order, find_writers
from d3fast.defenses.fine_pruning import FinePruning
from d3fast.models import PreActResNet, VisionTransformer
from d3fast.models.vgg import VGG


def _clean(seed):
    images = torch.rand(48, 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return [(images, torch.arange(48) % 3)]


def _pruned(model):
    defense = FinePruning(epochs=1, lr=0.01, max_acc_drop=1.0)
    return defense(model, _clean(0), _clean(1), progress=False).model


def _zero_rows(layer):
    """The rows that are zero in weight and bias."""
    weight = (layer.weight.flatten(1) if layer.weight.ndim > 1 else layer.weight[:, None]) == 0
    return (weight.all(dim=1) & (layer.bias == 0)).nonzero().flatten().tolist()


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
    return find_writers(model, head, images)


@pytest.mark.parametrize("seed", range(3))
def test_behind_a_shortcut_every_layer_that_writes_the_stream_loses_the_row(seed):
    model = _initialised(lambda: Residual(3), seed)
    assert _written_by(model, model.fc) == _stream(model)[::-1]
    defense = FinePruning(epochs=1, lr=0.01, max_acc_drop=1.0)
    repaired = defense(model, _clean(0), _clean(1), progress=False).model
    silent = [_zero_rows(norm) for norm in _stream(repaired)]
    assert len(silent[0]) == 3
    assert silent == [silent[0]] * 4
    assert not any(_zero_rows(block[1]) for block in repaired.blocks)


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
    assert len(_zero_rows(writer(repaired))) == model.head.in_features - 1


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
    assert execution_order(model, model[2], images, 3) == [model[1]]


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
        _pruned(model)
