"""What every model of the registry promises."""

import pytest
import torch
from torch import nn

from d3fast import find_head
from d3fast.models import MODELS

PARAMETERS = {  # with 10 classes, 3 channels
    "preact_resnet_tiny": 77_850,
    "preact_resnet_narrow": 308_266,
    # 11,171,146 in the widely used code, which leaves out the last batch norm of 2 x 512.
    "preact_resnet18": 11_172_170,
    # 20,040,522 in the widely used code for CIFAR-10, whose convolutions have biases too.
    "vgg19_bn": 20_035_018,
    "vit_tiny": 141_066,
    "vit_b_16": 85_806_346,
}
LARGE = ("vit_b_16",)  # shapes alone: on the meta device nothing is computed


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("classes", "channels", "size"), [(10, 1, 8), (3, 3, 32), (10, 1, 28)])
def test_a_model_scores_images_of_any_channels(name, classes, channels, size):
    size = 16 * size if name == "vit_b_16" else size
    with torch.device("meta"):
        model = MODELS[name](classes, channels).eval()
        images = torch.rand(2, channels, size, size)
    features = model.features(images)
    assert features.shape == (2, model.head.in_features)
    assert model(images).shape == model.head(features).shape == (2, classes)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_its_head_at_head(name):
    with torch.device("meta"):
        model = MODELS[name](7, 1)
    assert isinstance(model.head, nn.Linear)
    assert find_head(model) == ("head", model.head)
    assert model.head.out_features == 7


@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_as_documented(name):
    with torch.device("meta"):
        model = MODELS[name](10, 3)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", [name for name in MODELS if name not in LARGE])
def test_the_head_scores_the_features_alike_in_every_pass(name):
    model = MODELS[name](3, 2).eval()
    images = torch.rand(2, 2, 8, 8)
    scores = model(images)
    assert torch.equal(model(images), scores)
    assert torch.equal(model.head(model.features(images)), scores)


@pytest.mark.parametrize("name", [name for name in MODELS if name not in LARGE])
def test_gradients_reach_every_parameter(name):
    model = MODELS[name](3, 2)
    labels = torch.arange(4) % 3
    nn.functional.cross_entropy(model(torch.rand(4, 2, 8, 8)), labels).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_registry_cannot_be_changed():
    with pytest.raises(TypeError):
        MODELS["mine"] = nn.Linear
