"""Which weights are tracked."""

import pytest
import torch
from torch import nn

from d3fast import D3FusedSGD, param_groups


def mlp():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


class Named(nn.Module):
    """A model with the given children, in order."""

    def __init__(self, **children):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


def cnn():
    return Named(
        stem=nn.Conv2d(1, 4, 3), norm=nn.BatchNorm2d(4), pool=nn.AvgPool2d(2), fc=nn.Linear(4, 3)
    )


def tied():
    """Embedding and head share one weight, which goes by the embedding's name."""
    model = Named(embedding=nn.Embedding(9, 5), body=nn.Linear(5, 5), lm=nn.Linear(5, 9, False))
    model.lm.weight = model.embedding.weight
    return model


def names(model, track="head"):
    return [g["param_names"] for g in param_groups(model, track)]


def test_a_model_without_linear_layer_has_no_head():
    with pytest.raises(ValueError, match="Sequential has no linear layer and no 1x1 convolution"):
        param_groups(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))


TRACKS = {
    "head": ["fc.weight"],
    "linear": ["fc.weight"],
    "conv+linear": ["stem.weight", "fc.weight"],
    "all": ["stem.weight", "stem.bias", "norm.weight", "norm.bias", "fc.weight", "fc.bias"],
    r"^(stem|norm)\.bias$": ["stem.bias", "norm.bias"],
    "norm": ["norm.weight", "norm.bias"],
}


@pytest.mark.parametrize("track", TRACKS)
def test_track_selects(track):
    assert names(cnn(), track)[0] == TRACKS[track]


def test_a_callable_sees_name_owner_and_parameter():
    wide = lambda name, module, param: isinstance(module, nn.Linear) and param.dim() == 2  # noqa: E731
    assert names(cnn(), wide)[0] == ["fc.weight"]
    assert names(cnn(), lambda name, module, param: name.startswith("stem"))[0] == [
        "stem.weight",
        "stem.bias",
    ]


@pytest.mark.parametrize("track", TRACKS)
def test_every_parameter_is_in_one_group_and_in_model_order(track):
    model = cnn()
    tracked, *plain = names(model, track)
    order = [n for n, _ in model.named_parameters()]
    rest = plain[0] if plain else []
    assert sorted([*tracked, *rest], key=order.index) == order
    assert tracked == sorted(tracked, key=order.index)


def test_groups_hold_the_parameters_of_their_names():
    model = cnn()
    found = dict(model.named_parameters())
    for group in param_groups(model):
        assert [id(p) for p in group["params"]] == [id(found[n]) for n in group["param_names"]]


def test_the_plain_group_takes_the_plain_step():
    tracked, plain = param_groups(mlp())
    assert (plain["distance_weight"], plain["constraint"]) == (0.0, None)
    assert set(tracked) == {"params", "param_names", "track"}  # the optimizer's options hold
    assert tracked["track"] == "all"


def test_with_nothing_left_there_is_one_group():
    assert len(param_groups(mlp(), "all")) == 1


def test_frozen_parameters_are_left_out():
    model = mlp()
    model[0].requires_grad_(False)
    assert names(model) == [["2.weight"], ["2.bias"]]


TIED = "lm.weight is tied to embedding.weight: .* moves the input embeddings as well; "


@pytest.mark.parametrize(
    ("track", "want"),
    [
        ("head", ["embedding.weight"]),
        ("linear", ["embedding.weight", "body.weight"]),
        ("conv+linear", ["embedding.weight", "body.weight"]),
    ],
)
def test_a_layer_tied_to_an_embedding_is_tracked_once_and_announced_once(track, want):
    with pytest.warns(UserWarning, match=TIED) as caught:
        assert names(tied(), track)[0] == want
    assert len(caught) == 1


def is_wide(name, module, param):
    return isinstance(module, nn.Linear) and module.out_features == 9


@pytest.mark.parametrize("track", [r"^lm\.", r"^embedding\.", is_wide])
def test_any_name_and_owner_of_a_tied_weight_selects_it(track):
    assert names(tied(), track)[0] == ["embedding.weight"]


def test_what_the_user_names_is_not_warned_about():
    opt = D3FusedSGD(param_groups(tied(), "all"))
    assert len(opt.param_groups[0]["params"]) == 3
    assert len(names(tied(), "weight")[0]) == 2


def test_one_layer_used_twice_is_no_reason_to_warn():
    layer = nn.Linear(4, 4)
    assert names(Named(a=layer, fc=layer)) == [["a.weight"], ["a.bias"]]


@pytest.mark.parametrize(
    ("track", "message"),
    [
        ("no_such_layer", "track='no_such_layer' selects no trainable parameter"),
        ("(", r"track='\(' is no valid regular expression"),
    ],
)
def test_a_pattern_that_selects_nothing_or_is_none(track, message):
    with pytest.raises(ValueError, match=message):
        param_groups(mlp(), track)


def test_a_callable_that_selects_nothing():
    with pytest.raises(ValueError, match="selects no trainable parameter"):
        param_groups(mlp(), lambda name, module, param: False)


def test_a_frozen_head():
    model = mlp()
    model[2].requires_grad_(False)
    with pytest.raises(ValueError, match="track='head' selects no trainable parameter"):
        param_groups(model)


@pytest.mark.parametrize("track", ["head", "linear", "all"])
def test_a_step_moves_every_group(track, backend):
    model = mlp()
    before = [p.detach().clone() for p in model.parameters()]
    opt = D3FusedSGD(param_groups(model, track), lr=0.1, backend=backend)
    model(torch.ones(2, 4)).square().sum().backward()
    opt.step()
    assert not any(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))
    head = model[2].weight.detach()
    torch.testing.assert_close(head.norm(), before[2].norm())
