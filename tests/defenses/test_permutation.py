"""Permutations: the function stays, the weights move; nearest undoes furthest."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from d3fast.defenses.permutation import ChannelGroup, Place, channel_groups, permute_channels
from d3fast.models import VGG, PreActResNet, vit_tiny

NETWORKS = {
    "residual": lambda: PreActResNet(5, 2, width=4, blocks=(2, 1), stem_stride=2),
    "stack": lambda: VGG(5, 2, stages=((4, 1), (6, 2))),
    "flattened": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5)
    ),
    "depthwise": lambda: nn.Sequential(
        nn.Conv2d(2, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(216, 5)
    ),
    "linear": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(128, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5)
    ),
}


@pytest.fixture(params=NETWORKS)
def model(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = NETWORKS[request.param]()
        for module in made.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
                nn.init.normal_(module.running_mean)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return made.eval()


def images():
    return torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def distance(first, second):
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return sum(float((a - b).detach().square().sum()) for a, b in pairs)


def test_the_function_stays_and_the_weights_move_far(model):
    far = copy.deepcopy(model)
    moved = permute_channels(far, model, channel_groups(model), nearest=False)
    assert moved > 0
    size = sum(float(p.detach().square().sum()) for p in model.parameters())
    assert distance(far, model) > 0.5 * size
    with torch.no_grad():
        torch.testing.assert_close(far(images()), model(images()), rtol=1e-4, atol=1e-5)


def test_the_nearest_permutation_brings_a_permuted_copy_back(model):
    groups = channel_groups(model)
    copied = copy.deepcopy(model)
    permute_channels(copied, model, groups, nearest=False)
    permute_channels(copied, model, groups, nearest=True)
    assert distance(copied, model) == 0


def test_a_model_is_nearest_to_itself_as_it_is(model):
    copied = copy.deepcopy(model)
    assert permute_channels(copied, model, channel_groups(model), nearest=True) == 0


def test_one_layer_of_channels_has_the_best_permutation_of_all():
    model, other = nn.Linear(3, 4, bias=False), nn.Linear(3, 4, bias=False)
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        other.weight.copy_(model.weight[order])
    group = ChannelGroup(4, (Place("weight", 0),))
    permute_channels(model, other, [group], nearest=True)
    assert torch.equal(model.weight, other.weight)


def test_channels_that_are_added_move_together():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.head = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1), nn.Linear(4, 2)

        def forward(self, x):
            both = functional.relu(self.a(x)) + self.b(x)
            return self.head(torch.flatten(functional.adaptive_avg_pool2d(both, 1), 1))

    (group,) = channel_groups(Added())
    assert {place.name for place in group.places} == {
        "a.weight",
        "a.bias",
        "b.weight",
        "b.bias",
        "head.weight",
    }
    assert group.channels == 4


def test_channels_through_an_unknown_operation_stay():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(torch.relu(self.second(torch.cumsum(self.first(x), 1))))

    (group,) = channel_groups(Cut())
    assert {place.name for place in group.places} == {
        "second.weight",
        "second.bias",
        "head.weight",
    }


def test_a_linear_layer_along_the_columns_of_a_map_reads_no_channels():
    model = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Linear(8, 8), nn.Flatten(), nn.Linear(512, 5))
    with pytest.raises(ValueError, match="Sequential has no hidden channels"):
        channel_groups(model)


def test_a_layer_that_is_called_twice_has_the_same_channels_on_both_sides():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(torch.relu(self.again(torch.relu(self.again(self.first(x))))))

    model, far = Twice(), Twice()
    far.load_state_dict(model.state_dict())
    permute_channels(far, model, channel_groups(model), nearest=False)
    x = torch.rand(5, 3)
    torch.testing.assert_close(far(x), model(x), rtol=1e-4, atol=1e-5)


def test_channels_of_weights_that_are_computed_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 2))
    nn.utils.parametrizations.weight_norm(model[1])
    (group,) = channel_groups(model)
    assert {place.name for place in group.places} == {"2.weight", "2.bias", "3.weight"}


def test_groups_with_a_frozen_weight_are_left_out():
    model = NETWORKS["stack"]()
    assert len(channel_groups(model)) == 3
    model.layers[0].weight.requires_grad_(False)
    assert len(channel_groups(model)) == 2


def test_models_without_hidden_channels_or_without_a_graph_are_refused():
    with pytest.raises(ValueError, match="Linear has no hidden channels that can be permuted"):
        channel_groups(nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"graph of VisionTransformer, which torch\.fx cannot"):
        channel_groups(vit_tiny(10, 1))
