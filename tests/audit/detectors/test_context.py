"""What is inspected is checked first and left as it was."""

import pytest
import torch
from torch import nn

from d3fast.audit.detectors.context import open_context
from d3fast.data import ImageData

CPU = torch.device("cpu")


def data(images=None, labels=None, classes="abc"):
    images = torch.rand(6, 1, 2, 2) if images is None else images
    labels = torch.arange(len(images)) % 3 if labels is None else labels
    return ImageData(images, labels, tuple(classes))


def net(classes=3):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Linear(4, classes))


def test_the_model_is_frozen_inside_and_comes_back_as_it_was():
    model = net().train()
    model[2].bias.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with open_context(model, data(), CPU) as context:
        assert not any(module.training for module in context.model.modules())
        assert not any(param.requires_grad for param in context.model.parameters())
    assert all(module.training for module in model.modules())
    assert model[2].weight.requires_grad
    assert not model[2].bias.requires_grad
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_bytes_become_floats_in_0_to_1():
    with open_context(net(), data(torch.full((6, 1, 2, 2), 255, dtype=torch.uint8)), CPU) as s:
        assert s.images.dtype == torch.float32
        assert s.images.max() == 1


class Broken(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.head, self.value = nn.Linear(4, 3), value

    def forward(self, x):
        return self.head(x.flatten(1)) * self.value


@pytest.mark.parametrize(
    ("model", "samples", "error_text"),
    [
        (net(), data(torch.zeros(0, 1, 2, 2)), "inspection needs clean samples, got none"),
        (net(), data(2 * torch.ones(6, 1, 2, 2)), r"images must be in \[0, 1\]"),
        (net(), data(-torch.ones(6, 1, 2, 2)), r"images must be in \[0, 1\]"),
        (net(), data(torch.full((6, 1, 2, 2), torch.nan)), r"images must be in \[0, 1\]"),
        (
            net(),
            data(labels=torch.ones(6, dtype=torch.long)),
            "two or more classes, all are of 'b'",
        ),
        (net(5), data(), "the model has 5 classes, the samples have 3"),
        (Broken(float("nan")), data(), "the model gives NaN or inf scores on the clean samples"),
        (Broken(float("inf")), data(), "the model gives NaN or inf scores on the clean samples"),
    ],
)
def test_what_cannot_be_inspected_is_refused_in_one_line(model, samples, error_text):
    with pytest.raises(ValueError, match=error_text) as caught, open_context(model, samples, CPU):
        pass
    assert "\n" not in str(caught.value)
