"""The residual network of result files: names and shapes of its weights, and what it computes."""

import pytest
import torch

from d3fast.models import make_model
from d3fast.models.preact_resnet_bare import bare_preact_resnet18
from d3fast.optim.heads import find_head

SHAPES = {
    "conv1.weight": (64, 3, 3, 3),
    "layer1.0.bn1.weight": (64,),
    "layer1.1.conv2.weight": (64, 64, 3, 3),
    "layer2.0.bn1.running_mean": (64,),
    "layer2.0.conv1.weight": (128, 64, 3, 3),
    "layer2.0.shortcut.0.weight": (128, 64, 1, 1),
    "layer4.0.shortcut.0.weight": (512, 256, 1, 1),
    "layer4.1.bn2.bias": (512,),
    "linear.weight": (10, 512),
    "linear.bias": (10,),
}


def test_names_and_shapes_are_those_of_the_files():
    with torch.device("meta"):
        state = bare_preact_resnet18(10, 3).state_dict()
    assert {name: tuple(state[name].shape) for name in SHAPES} == SHAPES
    assert [name for name in state if "shortcut" in name] == [
        f"layer{stage}.0.shortcut.0.weight" for stage in (2, 3, 4)
    ]
    # Stem, 16 convolutions, 3 shortcuts, the head; 16 norms of five tensors.
    assert len(state) == 1 + 16 + 3 + 2 + 16 * 5


def test_a_command_line_can_name_it_and_the_head_is_found():
    spec = "d3fast.models.preact_resnet_bare:bare_preact_resnet18"
    with torch.device("meta"):
        assert find_head(make_model(spec, 7, 1))[0] == "linear"


@pytest.mark.parametrize("side", [8, 17, 32])
def test_scores_are_the_head_of_the_features(side):
    model = bare_preact_resnet18(3, 1).eval()
    images = torch.rand(2, 1, side, side)
    with torch.no_grad():
        assert torch.equal(model(images), model.linear(model.features(images)))
        # A block whose last convolution is 0 is its shortcut.
        block = model.layer1[0]
        block.conv2.weight.zero_()
        x = torch.rand(1, 64, 5, 5)
        assert torch.equal(block(x), x)
