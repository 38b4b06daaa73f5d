"""Blocks are found by structure alone, and a restart keeps each tensor's norm."""

import pytest
import torch
from torch import nn

from d3fast.models import preact_resnet18, preact_resnet_tiny, vgg19_bn, vit_tiny
from d3fast.optim.blocks import find_blocks, restart_blocks, restart_names


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(width, width, 3), nn.BatchNorm2d(width))
        self.second = nn.Sequential(nn.Conv2d(width, width, 3), nn.BatchNorm2d(width))


class Bottleneck(nn.Module):
    """As transformers writes it: its layers are a list of modules of one class."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Sequential(*[ConvNorm(width) for _ in range(3)])


class ConvNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 1)
        self.normalization = nn.BatchNorm2d(width)


class Stage(nn.Module):
    def __init__(self, block, count):
        super().__init__()
        self.layers = nn.ModuleList([block(4) for _ in range(count)])


def names(model):
    return [name for name, _ in find_blocks(model)]


@pytest.mark.parametrize(
    ("model", "count", "last"),
    [(preact_resnet18, 8, "blocks.7"), (vit_tiny, 4, "blocks.3"), (vgg19_bn, 16, "layers.49")],
)
def test_models_of_the_registry(model, count, last):
    found = names(model(10, 3))
    assert (len(found), found[-1]) == (count, last)


@pytest.mark.parametrize("block", [Residual, Bottleneck])
def test_stages_are_opened_and_blocks_are_not(block):
    model = nn.Sequential()
    model.stages = nn.ModuleList([Stage(block, 2), Stage(block, 3)])
    model.head = nn.Linear(4, 2)
    assert names(model) == [
        *("stages.0.layers.0", "stages.0.layers.1"),
        *("stages.1.layers.0", "stages.1.layers.1", "stages.1.layers.2"),
    ]


def test_layers_named_by_number_as_torchvision_has_them():
    model = nn.Module()
    model.layer1 = nn.Sequential(Residual(4), Residual(4))
    model.layer2 = nn.Sequential(Residual(4), Residual(4))
    model.fc = nn.Linear(4, 2)
    assert names(model) == ["layer1.0", "layer1.1", "layer2.0", "layer2.1"]


def test_a_plain_network_has_its_layers_for_blocks():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    assert names(model) == ["0", "2"]


def test_a_restart_keeps_norms_and_leaves_biases_and_normalisation():
    model = preact_resnet_tiny(10, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    replaced = restart_blocks(model, 2, torch.Generator().manual_seed(0))
    assert {name.split(".")[1] for name in replaced} == {"1", "2"}
    for name, value in model.state_dict().items():
        if name in replaced:
            torch.testing.assert_close(value.norm(), before[name].norm())
            assert torch.cosine_similarity(value.flatten(), before[name].flatten(), 0).abs() < 0.3
        else:
            assert torch.equal(value, before[name])


def test_the_same_generator_gives_the_same_weights():
    first, second = preact_resnet_tiny(10, 1), preact_resnet_tiny(10, 1)
    second.load_state_dict(first.state_dict())
    for model in (first, second):
        restart_blocks(model, 1, torch.Generator().manual_seed(3))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_regular_expression_chooses_weights():
    model = preact_resnet_tiny(10, 1)
    assert restart_names(model, r"blocks\.2\.conv") == [
        "blocks.2.conv1.weight",
        "blocks.2.conv2.weight",
    ]


def test_zero_blocks_are_none():
    assert restart_names(preact_resnet_tiny(10, 1), 0) == []


def test_layers_between_the_last_block_and_the_head_restart_too():
    model = nn.Module()
    model.stem = nn.Linear(4, 4)
    model.blocks = nn.ModuleList(nn.TransformerEncoderLayer(4, 1, 4) for _ in range(3))
    model.neck = nn.Linear(4, 6)
    model.head = nn.Linear(6, 2)
    names = restart_names(model, 1)
    assert names[-1] == "neck.weight"
    assert all(name.startswith("blocks.2.") for name in names[:-1])
    assert len(names) > 1


def test_embeddings_are_kept():
    model = nn.Sequential()
    model.embed = nn.Embedding(10, 4)
    model.fc = nn.Linear(4, 2)
    assert restart_names(model, ".*") == ["fc.weight"]


@pytest.mark.parametrize(("restart", "value"), [(4, "4"), ("nothing", "nothing"), ("(", r"\(")])
def test_what_cannot_be_restarted_is_named(restart, value):
    with pytest.raises(ValueError, match=f"restart.*{value}"):
        restart_names(preact_resnet_tiny(10, 1), restart)
