"""Weights of models that were saved whole."""

import pytest
import torch
from torch import nn

from d3fast.io.pickles import Inert
from d3fast.io.weight_files import open_weights
from d3fast.io.whole_models import whole_model


class Own(nn.Module):
    """Of a class of the test."""


def nested():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Sequential(nn.BatchNorm2d(2), nn.Linear(2, 3, bias=False))
    )


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source")
def test_the_names_and_values_are_those_of_the_state_dict(tmp_path, new):
    model = nested()
    torch.save(model, tmp_path / "w.pt", _use_new_zipfile_serialization=new)
    with open_weights(tmp_path / "w.pt") as held:
        assert list(held["model"]) == list(model.state_dict())
        for name, value in model.state_dict().items():
            assert torch.equal(held["model"][name].read(), value)
        assert held["whole model"] == Inert("torch.nn.modules.container.Sequential")


def test_a_shared_module_has_all_its_names(tmp_path):
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, layer)
    torch.save(model, tmp_path / "w.pt")
    with open_weights(tmp_path / "w.pt") as held:
        assert set(held["model"]) == set(model.state_dict())


@pytest.mark.parametrize("change", ["class", "hook", "forward"])
def test_a_model_that_may_compute_something_else_is_left_as_an_object(tmp_path, change):
    model = nested()
    if change == "class":
        model.add_module("own", Own())
    elif change == "hook":
        model[2][0].register_forward_pre_hook(print)
    else:
        model[0].forward = print
    torch.save(model, tmp_path / "w.pt")
    with open_weights(tmp_path / "w.pt") as held:
        assert held == Inert("torch.nn.modules.container.Sequential")


def test_a_part_that_is_no_module_is_refused():
    root = Inert("torch.nn.modules.container.Sequential")
    state = {"_parameters": {}, "_buffers": {}, "_modules": {"part": 3}}
    with pytest.raises(ValueError, match=r"its module 'part\.' is no module"):
        whole_model(root, {id(root): (root, state)})


def test_other_objects_are_left_alone():
    for held in ({"a": 1}, Inert("argparse.Namespace"), 3):
        assert whole_model(held, {}) is held
