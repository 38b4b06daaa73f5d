"""How far every layer went."""

import copy
import math

import pytest
import torch
from torch import nn

from d3fast import D3Config, detoxify
from d3fast.spectrum import DistanceRecorder, LayerDistance, distance_profile, total_distance
from d3fast.training.loop import Epoch


def test_every_parameter_has_its_distance_in_the_order_of_the_model():
    start = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    end = copy.deepcopy(start)
    with torch.no_grad():
        end[0].weight.add_(3.0)
    profile = distance_profile(start, end)
    assert [layer.name for layer in profile] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert [layer.distance for layer in profile] == pytest.approx([6.0, 0, 0, 0])
    norm = float(start[0].weight.detach().norm())
    assert profile[0].norm == pytest.approx(norm)
    assert profile[0].relative == pytest.approx(6 / norm)


def test_some_parameters_can_be_asked_for():
    start = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    assert [layer.name for layer in distance_profile(start, start, "head")] == ["1.weight"]


def test_a_start_of_zero_has_no_relative_distance():
    assert LayerDistance("bias", 1, 2.0, 0.0).relative is None


def test_the_total_is_the_norm_over_all_layers():
    start = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    end = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    total = total_distance(distance_profile(start, end))
    pairs = zip(start.parameters(), end.parameters(), strict=True)
    delta = torch.cat([(b - a).detach().flatten() for a, b in pairs])
    assert total.distance == pytest.approx(float(delta.norm()))
    assert total.numel == len(delta)


def test_models_of_other_kinds_get_one_line():
    with pytest.raises(ValueError, match=r"the model has no weight of shape \(2, 2\)"):
        distance_profile(nn.Linear(2, 2), nn.Linear(3, 2))
    with pytest.raises(ValueError, match="the model has no bias"):
        distance_profile(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))
    with pytest.raises(ValueError, match="the model has a parameter bias that the start lacks"):
        distance_profile(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))


def test_a_recorder_refuses_a_model_of_another_kind_and_records_nothing():
    recorder = DistanceRecorder(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="the model has no weight of shape"):
        recorder(Epoch(epoch=1, loss=0.0, accuracy=1.0, lr=0.1), nn.Linear(3, 2))
    assert recorder.as_dict() == {"epochs": [], "layers": {}}


def test_frozen_parameters_are_left_out():
    start = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    start[0].requires_grad_(False)
    assert [layer.name for layer in distance_profile(start, start)] == ["1.weight", "1.bias"]


def test_a_distance_that_is_not_finite_is_null_in_json():
    start, broken = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(broken.weight, math.nan)
    recorder = DistanceRecorder(start)
    recorder(Epoch(epoch=1, loss=0.0, accuracy=1.0, lr=0.1), broken)
    assert recorder.as_dict()["layers"]["weight"] == {"distance": [None], "relative": [None]}
    row = distance_profile(start, broken)[0].as_dict()
    assert (row["distance"], row["relative"]) == (None, None)


def test_a_recorder_follows_a_repair_epoch_by_epoch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    data = [(torch.rand(8, 4), torch.arange(8) % 2)]
    recorder = DistanceRecorder(model)
    config = D3Config(epochs=3, averaging=0.0)
    result = detoxify(model, data, config=config, on_epoch=recorder, progress=False)
    assert recorder.epochs == [1, 2, 3]
    last = distance_profile(model, result.model)
    assert [layer.distance for layer in recorder.profiles[-1]] == pytest.approx(
        [layer.distance for layer in last]
    )
    layers = recorder.as_dict()["layers"]
    assert list(layers) == [layer.name for layer in last]
    assert len(layers["3.weight"]["relative"]) == 3


def test_a_recorder_keeps_the_start_it_was_given():
    model = nn.Linear(1, 1, bias=False)
    recorder = DistanceRecorder(model)
    with torch.no_grad():
        model.weight.add_(2.0)
    detoxified = copy.deepcopy(model)
    recorder(Epoch(epoch=1, loss=0.0, accuracy=1.0, lr=0.1), detoxified)
    assert recorder.profiles[0][0].distance == pytest.approx(2.0)
    assert DistanceRecorder(model).as_dict() == {"epochs": [], "layers": {}}
