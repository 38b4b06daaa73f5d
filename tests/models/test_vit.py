"""Vision transformers of any patch, width, depth and grid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d3fast.models import VisionTransformer, vit_b_16, vit_tiny


def small(**changes):
    sizes = {
        "num_classes": 3,
        "in_channels": 2,
        "image_size": 8,
        "patch": 4,
        "width": 8,
        "depth": 2,
        "heads": 2,
    }
    return VisionTransformer(**{**sizes, **changes})


@settings(max_examples=25)
@given(
    classes=st.integers(1, 12),
    channels=st.integers(1, 4),
    patch=st.integers(1, 4),
    rows=st.integers(1, 5),
    columns=st.integers(1, 5),
    grid=st.integers(1, 4),
)
def test_every_grid_of_patches_gives_one_row_of_scores_per_image(
    classes, channels, patch, rows, columns, grid
):
    model = small(num_classes=classes, in_channels=channels, patch=patch, image_size=grid * patch)
    images = torch.rand(2, channels, rows * patch, columns * patch)
    assert model.features(images).shape == (2, 8)
    assert model(images).shape == (2, classes)


def test_vit_b_16_has_the_published_size():
    with torch.device("meta"):
        model = vit_b_16(1000, 3)
    assert sum(p.numel() for p in model.parameters()) == 86_567_656
    assert sum(p.numel() for p in model.head.parameters()) == 769_000


def test_vit_b_16_takes_images_of_224_pixels_as_196_patches():
    with torch.device("meta"):
        model = vit_b_16(10, 3)
        seen = []
        model.blocks.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
        model(torch.rand(2, 3, 224, 224))
    assert seen == [(2, 1 + 196, 768)]


def test_the_scores_are_those_of_the_formula():
    model = small(depth=1).double().eval()
    block, images = model.blocks[0], torch.rand(2, 2, 8, 8, dtype=torch.float64)
    cut = images.unfold(2, 4, 4).unfold(3, 4, 4)  # (N, C, rows, columns, 4, 4)
    patches = torch.einsum("ncrsij,wcij->nrsw", cut, model.patches.weight) + model.patches.bias
    tokens = torch.cat([model.class_token.expand(2, 1, 8), patches.flatten(1, 2)], dim=1)
    tokens = tokens + model.positions

    q, k, v = (
        block.norm1(tokens) @ block.self_attn.in_proj_weight.T + block.self_attn.in_proj_bias
    ).chunk(3, dim=-1)
    heads = [
        torch.softmax(a @ b.mT / 2, dim=-1) @ c
        for a, b, c in zip(q.chunk(2, -1), k.chunk(2, -1), v.chunk(2, -1), strict=True)
    ]
    tokens = tokens + block.self_attn.out_proj(torch.cat(heads, dim=-1))
    hidden = nn.functional.gelu(block.linear1(block.norm2(tokens)))
    tokens = tokens + block.linear2(hidden)
    assert torch.allclose(model(images), model.head(model.norm(tokens[:, 0])))


def test_scores_with_and_without_gradients_agree():
    # Without gradients torch takes a fused path of its own.
    model = small().eval()
    images = torch.rand(2, 2, 8, 8)
    with torch.no_grad():
        fused = model(images)
    torch.testing.assert_close(fused, model(images))


def test_blocks_start_from_weights_of_their_own():
    first, second = small().blocks
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    assert not torch.equal(first.self_attn.in_proj_weight, second.self_attn.in_proj_weight)


def test_positions_of_the_own_grid_are_taken_as_they_are():
    model = small()
    assert model._positions(2, 2) is model.positions


def test_positions_of_another_grid_are_interpolated_in_both_directions():
    model = small(image_size=12)
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(3.0), indexing="ij")
    with torch.no_grad():
        model.positions[0, 1:, 0], model.positions[0, 1:, 1] = rows.flatten(), columns.flatten()
    resized = model._positions(3, 6)
    want = nn.functional.interpolate(
        model.positions[:, 1:].mT.unflatten(2, (3, 3)), size=(3, 6), mode="bilinear"
    )
    assert resized.shape == (1, 1 + 18, 8)
    torch.testing.assert_close(resized[:, 1:], want.flatten(2).mT)
    assert torch.equal(resized[:, 0], model.positions[:, 0])


def test_the_order_of_the_patches_matters():
    model = small().eval()
    images = torch.rand(1, 2, 8, 8)
    assert not torch.allclose(model(images), model(images.flip(2)))


def test_gradients_reach_every_parameter_on_another_grid():
    model = small(image_size=12)
    nn.functional.cross_entropy(model(torch.rand(2, 2, 8, 16)), torch.tensor([0, 1])).backward()
    assert [n for n, p in model.named_parameters() if not p.grad.any()] == []


@pytest.mark.parametrize(("height", "width"), [(28, 30), (30, 28), (3, 4), (0, 4)])
def test_images_that_patches_do_not_tile_are_refused(height, width):
    message = f"^images must have sides that are multiples of 4 pixels, got {height}x{width}$"
    with pytest.raises(ValueError, match=message):
        vit_tiny(10, 1)(torch.rand(1, 1, height, width))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_classes": 0}, "num_classes must be an integer >= 1, got 0"),
        ({"depth": 0}, "depth must be an integer >= 1, got 0"),
        ({"mlp_width": 0}, "mlp_width must be an integer >= 1, got 0"),
        ({"image_size": 30}, "image_size must be a multiple of patch=4, got 30"),
        ({"width": 9}, "width must be a multiple of heads=2, got 9"),
    ],
)
def test_sizes_that_cannot_be_are_refused_by_name(sizes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        small(**sizes)
