# SPDX-License-Identifier: Apache-2.0
import io
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from d3fast.hub.programs.aten_graph import read_graph
from d3fast.hub.programs.aten_program import AtenBuilder
from d3fast.hub.programs.input_form import InputForm
from d3fast.hub.programs.measure import measure
from d3fast.io.exported_file import read_program

IMAGES = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def built(model, **options):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model.eval(), (IMAGES,), **options), buffer)
    file = read_program(buffer)
    graph = read_graph(file.graph)
    found = AtenBuilder(file, graph, graph.outputs[0], InputForm(1, (4, 4)))
    measure(found.program)
    found.fill()
    return found


class Mixed(nn.Module):
    """Layers, shared and loose weights, sizes that depend on the batch, operators in place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.register_buffer("order", torch.tensor([3, 1, 0, 2]))
        self.shared = nn.Linear(16, 16)
        self.fc = nn.Linear(64, 3)

    def forward(self, images):
        x = functional.relu_(self.norm(self.conv(images))) * self.scale
        x += images
        x = x[:, self.order].view(images.shape[0] * 4, 16)
        x = self.shared(self.shared(x)).chunk(2, dim=1)
        x = torch.cat([x[1], x[0]], dim=1).reshape(images.shape[0], 64)
        return functional.dropout(self.fc(x), 0.5, self.training)


@pytest.mark.parametrize("free", [pytest.param(True, marks=pytest.mark.slow), False])
def test_the_scores_are_those_of_the_model(free):
    shapes = ({0: torch.export.Dim("n", min=2, max=64)},) if free else None
    model = Mixed()
    program = built(model, dynamic_shapes=shapes).program.eval()
    images = torch.rand(5, 1, 4, 4) if free else IMAGES
    torch.testing.assert_close(program(images), model(images))


def test_layers_are_modules_and_other_weights_are_parameters():
    program = built(Mixed()).program
    assert isinstance(program.conv, nn.Conv2d)
    assert isinstance(program.norm, nn.BatchNorm2d)
    assert isinstance(program.fc, nn.Linear)
    assert {"scale", "shared.weight"} <= dict(program.named_parameters()).keys()


def test_gradients_go_through_a_detached_value():
    class Hidden(nn.Module):
        def forward(self, images):
            return images.flatten(1).detach()

    images = IMAGES.clone().requires_grad_()
    built(Hidden()).program(images).sum().backward()
    assert images.grad.unique().tolist() == [1]


def test_a_softmax_at_the_end_is_left_out():
    found = built(nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.Softmax(1)))
    assert found.softmax
    assert bool((found.program(IMAGES).sum(1) - 1).abs().max() > 0.01)


def test_a_view_of_a_value_that_is_changed_in_place_is_refused():
    class Aliased(nn.Module):
        def forward(self, images):
            images = images * 1
            rows = images.view(2, 16)
            images.add_(1)
            return rows * images.sum()

    with pytest.raises(ValueError, match="views"):
        built(Aliased())
