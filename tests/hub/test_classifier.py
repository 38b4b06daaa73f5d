# SPDX-License-Identifier: Apache-2.0
import copy
import pickle

import pytest
import torch
from torch import nn

from d3fast.hub import Classifier
from d3fast.optim.heads import find_head


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))


class Told(nn.Module):
    """Notes what a text model is called with."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, input_ids, attention_mask):
        sums = torch.stack([input_ids.sum(1), attention_mask.sum(1)], 1)
        return {"logits": sums * self.scale}


def test_names_are_those_of_the_model():
    model = net()
    wrapped = Classifier(model, (0.5,), (0.5,))
    assert list(wrapped.state_dict()) == list(model.state_dict())
    assert find_head(wrapped)[0] == find_head(model)[0]


def test_images_are_normalised():
    model = net().eval()
    images = torch.rand(4, 1, 2, 2)
    expected = model((images - 0.5) / 0.25)
    torch.testing.assert_close(Classifier(model, (0.5,), (0.25,))(images), expected)


def test_a_text_model_gets_ids_and_their_mask():
    scores = Classifier(Told(), pad=0)(torch.tensor([[5, 6, 0]]))
    assert scores.tolist() == [[11.0, 2.0]]


@pytest.mark.parametrize("remake", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_shares_nothing_with_the_original_and_all_with_its_own_model(remake):
    wrapped = Classifier(net())
    other = remake(wrapped)
    with torch.no_grad():
        for param in other.parameters():
            param.zero_()
    assert all((param == 0).all() for param in other.inner.parameters())
    assert any((param != 0).any() for param in wrapped.inner.parameters())


def test_modes_and_dtypes_reach_the_model_inside():
    wrapped = Classifier(net()).train()
    assert wrapped.inner.training
    assert not wrapped.eval().inner.training
    wrapped.double()
    assert wrapped.inner[0].weight.dtype == torch.float64


def test_gradients_and_loads_reach_the_model_inside():
    wrapped = Classifier(net())
    wrapped(torch.rand(2, 1, 2, 2)).sum().backward()
    assert wrapped.inner[3].weight.grad is not None
    state = {name: torch.zeros_like(value) for name, value in wrapped.state_dict().items()}
    wrapped.load_state_dict(state)
    assert not wrapped.inner[3].weight.any()


@pytest.mark.parametrize(
    ("mean", "std"), [((0.5,), None), (None, (0.5,)), ((0.5,), (0.5, 0.5)), ((0.5,), (0.0,))]
)
def test_a_normalisation_that_does_not_fit_is_refused(mean, std):
    with pytest.raises(ValueError, match="std must be"):
        Classifier(net(), mean, std)
