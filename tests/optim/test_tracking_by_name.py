"""Tracked parameters chosen by name, against the choice that ``param_groups`` makes by module."""

import pytest
from torch import nn

import d3fast
from d3fast import D3FusedSGD


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 7), nn.Linear(7, 5))


def names(opt):
    return list(opt.distances())


class Classifier(nn.Module):
    """An embedding, a block, a normalisation and a head with a conventional name."""

    def __init__(self, head="classifier", bias=True):
        super().__init__()
        self.embed_tokens = nn.Embedding(9, 6)
        self.block = nn.Sequential(nn.Conv1d(6, 6, 3), nn.BatchNorm1d(6), nn.Linear(6, 6))
        self.add_module(head, nn.Linear(6, 4, bias=bias))


class Wrapper(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


MODELS = {
    "sequential": network,
    "linear": lambda: nn.Linear(3, 2),
    "classifier": Classifier,
    "wrapped": lambda: Wrapper(Classifier("lm_head")),
    "named so": lambda: Classifier("cls_head"),
    "block": lambda: Wrapper(nn.ModuleDict({"body": network(), "head": network()})),
    "pointwise": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(5, 5), nn.Conv2d(4, 2, 1)),
}


@pytest.mark.parametrize("track", ["head", "linear", "conv+linear", "all", r"weight$"])
@pytest.mark.parametrize("model", MODELS)
def test_names_select_what_modules_select(model, track):
    model = MODELS[model]()
    opt = D3FusedSGD(model.named_parameters(), track=track)
    assert len(opt.param_groups) == 1
    assert names(opt) == d3fast.param_groups(model, track)[0]["param_names"]


def test_a_callable_gets_names_and_parameters():
    opt = D3FusedSGD(network().named_parameters(), track=lambda name, p: p.shape == (5,))
    assert names(opt) == ["3.bias"]


@pytest.mark.parametrize(
    ("model", "track", "text"),
    [
        (lambda: Classifier("output"), "head", "no layer has a conventional name"),
        (lambda: Classifier("lm_head", bias=False), "linear", "lm_head.weight without a bias"),
        (lambda: nn.BatchNorm1d(3), "head", "no name"),
        (
            lambda: nn.ModuleDict({"head": nn.Linear(2, 2), "fc": nn.Linear(2, 2)}),
            "head",
            "head, fc may all be heads",
        ),
        (
            lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))),
            "conv+linear",
            "original0",
        ),
    ],
)
def test_names_that_leave_a_choice_are_refused(model, track, text):
    with pytest.raises(ValueError, match=r"d3fast\.param_groups\(model, track=") as caught:
        D3FusedSGD(model().named_parameters(), track=track)
    assert text in str(caught.value)
    assert f"track={track!r}" in str(caught.value)


@pytest.mark.parametrize("track", ["head", r"weight$", lambda name, p: True])
def test_a_choice_by_name_needs_names(track):
    with pytest.raises(ValueError, match="needs names"):
        D3FusedSGD(network().parameters(), track=track)


def test_a_head_is_looked_for_in_one_group_only():
    named = list(network().named_parameters())
    with pytest.raises(ValueError, match="track='head' needs all names in one group"):
        D3FusedSGD([{"params": named[:2]}, {"params": named[2:]}], track="head")


def test_an_expression_chooses_over_all_groups():
    named = list(network().named_parameters())
    opt = D3FusedSGD([{"params": named[:2]}, {"params": named[2:]}], track=r"^3\.weight")
    assert names(opt) == ["3.weight"]


@pytest.mark.parametrize(
    ("track", "text"),
    [
        ("nothing", "track='nothing' selects no parameter"),
        ("(", r"track='\(' is no valid regular expression"),
        (3, "track must be .* got 3"),
        ((0, 8), r"positions below 8, got \(0, 8\)"),
    ],
)
def test_a_choice_that_cannot_be_used_is_refused(track, text):
    with pytest.raises(ValueError, match=text):
        D3FusedSGD(network().named_parameters(), track=track)
