"""What every model of the registry promises."""

import pytest
import torch
from torch import nn

from d3fast import find_head
from d3fast.models import MODELS


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("classes", "channels", "size"), [(10, 1, 8), (3, 3, 32), (10, 1, 28)])
def test_a_model_scores_images_and_has_its_head_at_head(name, classes, channels, size):
    model = MODELS[name](classes, channels).eval()
    assert model(torch.rand(1, channels, size, size)).shape == (1, classes)
    assert isinstance(model.head, nn.Linear)
    assert find_head(model) == ("head", model.head)
    assert model.head.out_features == classes


def test_the_registry_cannot_be_changed():
    with pytest.raises(TypeError):
        MODELS["mine"] = nn.Linear
