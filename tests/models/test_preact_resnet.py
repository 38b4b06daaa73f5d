"""Pre-activation ResNets of any width, depth, image size and number of channels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d3fast.models import (
    PreActResNet,
    preact_resnet_narrow,
)
from d3fast.models.preact_resnet import PreActBlock


@settings(max_examples=25)
@given(
    classes=st.integers(1, 12),
    channels=st.integers(1, 4),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    blocks=st.lists(st.integers(1, 2), min_size=1, max_size=3),
    stem_stride=st.integers(1, 2),
)
def test_every_image_size_gives_one_row_of_scores_per_image(
    classes, channels, height, width, blocks, stem_stride
):
    model = PreActResNet(classes, channels, width=2, blocks=blocks, stem_stride=stem_stride).eval()
    images = torch.rand(2, channels, height, width)
    features = model.features(images)
    assert features.shape == (2, 2 * 2 ** (len(blocks) - 1)) == (2, model.head.in_features)
    assert model(images).shape == (2, classes)
    assert torch.equal(model(images), model.head(features))


@pytest.mark.parametrize("stem_stride", [1, 2])
def test_every_stage_after_the_first_halves_the_resolution(stem_stride):
    model = PreActResNet(10, 1, width=4, blocks=(2, 1, 1), stem_stride=stem_stride)
    sizes = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[1:])))
    model(torch.rand(2, 1, 28, 28))
    first = 28 // stem_stride
    assert sizes == [
        (4, first, first),
        (4, first, first),
        (8, first // 2, first // 2),
        (16, -(-first // 4), -(-first // 4)),
    ]


def test_a_block_is_its_shortcut_plus_two_activated_convolutions():
    block = PreActBlock(3, 5, stride=2).double().eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    active = torch.relu(block.norm1(x))
    inner = block.conv2(torch.relu(block.norm2(block.conv1(active))))
    assert torch.allclose(block(x), block.shortcut(active) + inner)


def test_a_block_that_keeps_its_shape_has_no_shortcut_weights():
    block = PreActBlock(4, 4, stride=1).eval()
    assert block.shortcut is None
    nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("outputs", "stride"), [(4, 2), (5, 1)])
def test_a_block_that_changes_its_shape_has_a_shortcut_convolution(outputs, stride):
    block = PreActBlock(4, outputs, stride)
    assert block.shortcut.weight.shape == (outputs, 4, 1, 1)
    size = -(-7 // stride)
    assert block(torch.randn(2, 4, 7, 7)).shape == (2, outputs, size, size)


def test_only_the_head_has_a_bias_beside_batch_norm():
    model = preact_resnet_narrow(10, 1)
    layers = [(n, m) for n, m in model.named_modules() if not isinstance(m, nn.BatchNorm2d)]
    biased = [name for name, module in layers if getattr(module, "bias", None) is not None]
    assert biased == ["head"]


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_classes": 0},
        {"in_channels": 0},
        {"width": 0},
        {"stem_stride": 0},
        {"blocks": ()},
        {"blocks": (1, 0)},
    ],
)
def test_sizes_below_1_are_refused_by_name(sizes):
    (name,) = sizes
    with pytest.raises(ValueError, match=f"^{name} must be an integer >= 1, got 0$"):
        PreActResNet(**{"num_classes": 2, **sizes})
