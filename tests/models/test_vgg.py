"""VGG with batch norm of any widths and depth."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d3fast.models import VGG, vgg19_bn

STAGES = ((4, 2), (6, 1), (8, 1))


@settings(max_examples=25)
@given(
    classes=st.integers(1, 12),
    channels=st.integers(1, 4),
    height=st.integers(1, 17),
    width=st.integers(1, 17),
    stages=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 2)), min_size=1, max_size=5),
)
def test_every_image_size_gives_one_row_of_scores_per_image(
    classes, channels, height, width, stages
):
    model = VGG(classes, channels, stages).eval()
    images = torch.rand(2, channels, height, width)
    assert model.features(images).shape == (2, stages[-1][0])
    assert model(images).shape == (2, classes)


def test_vgg19_has_sixteen_convolutions_of_the_published_widths_and_a_head():
    with torch.device("meta"):
        model = vgg19_bn(10, 3)
    widths = [m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8


@pytest.mark.parametrize(
    ("size", "maps"),
    [(32, [16, 8, 4, 2, 1]), (28, [14, 7, 4, 2, 1]), (8, [4, 2, 1, 1, 1]), (1, [1] * 5)],
)
def test_every_pool_halves_the_map_rounding_up_and_a_pixel_stays(size, maps):
    with torch.device("meta"):
        model = vgg19_bn(10, 1)
        sizes = []
        for layer in model.layers:
            if isinstance(layer, nn.MaxPool2d):
                layer.register_forward_hook(lambda _, __, out: sizes.append(out.shape[-1]))
        model(torch.rand(2, 1, size, size))
    assert sizes == maps


def test_a_stage_is_convolution_batch_norm_and_relu():
    model = VGG(3, 2, STAGES).double().eval()
    x = images = torch.randn(2, 2, 9, 9, dtype=torch.float64)
    convolutions = [m for m in model.layers if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.layers if isinstance(m, nn.BatchNorm2d)]
    for last, conv, norm in zip((0, 1, 1, 1), convolutions, norms, strict=True):
        x = torch.relu(norm(nn.functional.conv2d(x, conv.weight, padding=1)))
        x = nn.functional.max_pool2d(x, 2, ceil_mode=True) if last else x
    assert torch.allclose(model(images), model.head(x.mean(dim=(2, 3))))


def test_convolutions_start_from_hes_distribution():
    model = VGG(3, 64, ((128, 1),))
    weight = model.layers[0].weight
    assert weight.std().item() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert weight.mean().item() == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_classes": 0},
        {"in_channels": 0},
        {"stages": ()},
        {"stages": ((4, 0),)},
        {"stages": ((4, 1), (0, 1))},
    ],
)
def test_sizes_below_1_are_refused_by_name(sizes):
    (name,) = sizes
    with pytest.raises(ValueError, match=f"^{name} must be an integer >= 1, got 0$"):
        VGG(**{"num_classes": 2, **sizes})
