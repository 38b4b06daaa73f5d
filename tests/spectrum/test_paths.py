"""Losses along a line and over a plane of weights."""

import copy
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from d3fast.attacks import BadNets
from d3fast.spectrum import Difference, LossPath, PathPoint, loss_path, loss_plane
from d3fast.spectrum.paths import _Interpolation
from d3fast.spectrum.samples import triggered_batches
from d3fast.training.metrics import evaluate

CE = nn.CrossEntropyLoss()


def convnet(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, 3)
    )
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.1, 3)
    return model


@pytest.fixture
def images():
    torch.manual_seed(2)
    return list(zip(torch.rand(12, 1, 8, 8).split(5), (torch.arange(12) % 3).split(5), strict=True))


def square(scores, labels):
    return scores.square().mean()


def test_the_square_of_a_linear_model_is_a_parabola_in_t():
    start, end = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    nn.init.constant_(start.weight, 1.0)
    nn.init.constant_(end.weight, 3.0)
    data = [(torch.ones(4, 2), torch.zeros(4).long())]
    path = loss_path(start, end, square, data, ts=(0, 0.5, 1, 2), progress=False)
    assert [p.clean_loss for p in path.points] == pytest.approx([4.0, 16.0, 36.0, 100.0])
    plane = loss_plane(
        start, end, end, square, data, first_steps=(0, 1), second_steps=(0, 1, 2), progress=False
    )
    expected = torch.tensor([[4.0, 36.0, 100.0], [36.0, 100.0, 196.0]]).double()
    torch.testing.assert_close(plane.grid("clean_loss"), expected)


def test_the_ends_are_the_models_themselves(images):
    models, attack = (convnet(0), convnet(1)), BadNets(target=0)
    path = loss_path(*models, CE, images, attack, ts=(0, 1), progress=False)
    for point, model in zip(path.points, models, strict=True):
        measured = evaluate(model, images, attack)
        assert (point.acc, point.asr, point.ra) == (measured.acc, measured.asr, measured.ra)
        calm = copy.deepcopy(model).eval()
        inputs, labels = (torch.cat(parts) for parts in zip(*images, strict=True))
        assert point.clean_loss == pytest.approx(cross_entropy(calm(inputs), labels).item())
        hit = triggered_batches(images, attack, 3)
        inputs, labels = (torch.cat(parts) for parts in zip(*hit, strict=True))
        assert point.backdoor_loss == pytest.approx(cross_entropy(calm(inputs), labels).item())


def test_the_model_itself_is_met_to_the_last_bit():
    models = [convnet(seed) for seed in range(3)]
    models[0][4].weight.data.mul_(1e6)
    between = _Interpolation(models[0], models[1:], torch.device("cpu"))
    for shares, model in zip(((0, 0), (1, 0), (0, 1)), models, strict=True):
        there = between.at(shares).state_dict()
        assert all(torch.equal(there[name], own) for name, own in model.state_dict().items())


@given(st.floats(-3, 3), st.floats(-3, 3))
def test_a_running_variance_is_nowhere_negative(a, b):
    models = [nn.Sequential(nn.BatchNorm1d(1)) for _ in range(3)]
    for model, variance in zip(models, (1e8, 0.0, 1e-3), strict=True):
        model[0].running_var.fill_(variance)
    there = _Interpolation(models[0], models[1:], torch.device("cpu")).at((a, b))
    assert 0 <= there[0].running_var.item() <= 1e8


def test_integer_buffers_stay_those_of_the_start():
    start, end = nn.BatchNorm1d(1), nn.BatchNorm1d(1)
    end.num_batches_tracked.fill_(7)
    there = _Interpolation(start, [end], torch.device("cpu")).at((2.0,))
    assert there.num_batches_tracked.item() == 0


def test_a_buffer_that_is_not_saved_goes_along():
    start, end = nn.Linear(1, 1), nn.Linear(1, 1)
    start.register_buffer("scale", torch.tensor(1.0), persistent=False)
    end.register_buffer("scale", torch.tensor(3.0), persistent=False)
    assert _Interpolation(start, [end], torch.device("cpu")).at((0.5,)).scale.item() == 2


def test_three_models_are_met_by_their_plane(images):
    models = [convnet(seed) for seed in range(3)]
    plane = loss_plane(*models, CE, images, first_steps=(0, 1), second_steps=(0, 1), progress=False)
    alone = [
        loss_path(model, model, CE, images, ts=(0,), progress=False).points[0].clean_loss
        for model in models
    ]
    found = plane.grid("clean_loss")
    assert [found[0, 0], found[1, 0], found[0, 1]] == pytest.approx(alone)
    assert plane.grid("asr").isnan().all()


def test_beyond_an_end_statistics_stay_those_of_the_end(images):
    start, end = convnet(0), convnet(1)
    beyond = copy.deepcopy(end)
    with torch.no_grad():
        every = (model.parameters() for model in (beyond, start, end))
        for there, a, b in zip(*every, strict=True):
            there.copy_(2 * b - a)
    path = loss_path(start, end, CE, images, ts=(2,), progress=False)
    alone = loss_path(beyond, beyond, CE, images, ts=(0,), progress=False)
    assert path.points[0].clean_loss == pytest.approx(alone.points[0].clean_loss, rel=1e-4)
    assert path.points[0].acc == alone.points[0].acc


def test_a_tied_weight_moves_once():
    def tied(value):
        model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        model[1].weight = model[0].weight
        nn.init.constant_(model[0].weight, value)
        return model

    data = [(torch.ones(1, 2), torch.zeros(1).long())]
    path = loss_path(tied(1.0), tied(2.0), square, data, ts=(1,), progress=False)
    assert path.points[0].clean_loss == pytest.approx(16.0**2)


def test_a_weight_that_one_model_ties_alone_is_refused():
    tied, free = (nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)) for _ in range(2))
    tied[1].weight = tied[0].weight
    for pair in ((tied, free), (free, tied)):
        with pytest.raises(ValueError, match=r"1\.weight is tied in one of them alone"):
            loss_path(*pair, CE, [(torch.ones(1, 2), torch.zeros(1).long())], progress=False)


def test_models_are_not_changed(images):
    models = convnet(0), convnet(1)
    before = [copy.deepcopy(model.state_dict()) for model in models]
    loss_path(*models, CE, images, BadNets(target=0), ts=(0, 0.3, 2), progress=False)
    for model, state in zip(models, before, strict=True):
        assert model.training
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_default_goes_from_one_model_to_twice_as_far_as_the_other():
    model = nn.Linear(2, 2)
    data = [(torch.ones(1, 2), torch.zeros(1).long())]
    path = loss_path(model, model, CE, data, progress=False)
    ts = [point.at[0] for point in path.points]
    assert (ts[0], ts[-1], len(ts)) == (0, 2, 41)
    assert 1 in ts


def test_a_barrier_is_what_rises_above_the_straight_line():
    losses = {0.0: 1.0, 0.25: 3.0, 1.0: 2.0, 2.0: 9.0}
    points = [PathPoint((t,), loss, 1.0) for t, loss in losses.items()]
    assert LossPath(tuple(points)).barrier == pytest.approx(3 - 1.25)
    assert LossPath(tuple(points[1:])).barrier is None


def test_an_end_without_a_finite_loss_leaves_no_barrier():
    for ends in ((math.inf, 1.0), (1.0, math.inf)):
        points = [
            PathPoint((t,), loss, 1.0) for t, loss in zip((0.5, 0, 1), (1, *ends), strict=True)
        ]
        assert LossPath(tuple(points)).barrier is None


def test_steps_may_come_as_a_tensor():
    model, data = nn.Linear(2, 2), [(torch.ones(1, 2), torch.zeros(1).long())]
    path = loss_path(model, model, CE, data, ts=torch.linspace(0, 1, 3), progress=False)
    assert [type(point.at[0]) for point in path.points] == [float] * 3
    assert path.barrier == pytest.approx(0.0, abs=1e-6)


def test_where_scores_are_nan_a_point_has_no_rates_and_the_others_have():
    start, end = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        end.weight.copy_(torch.tensor([[3e38, -3e38]] * 2))
    data = [(torch.ones(2, 2), torch.tensor([0, 1]))]
    path = loss_path(start, end, CE, data, ts=(0, 2), progress=False)
    assert path.points[0].acc is not None
    assert path.points[1] == PathPoint((2.0,), math.inf, acc=None)


def test_labels_outside_the_classes_get_one_line():
    model, data = nn.Linear(2, 2), [(torch.ones(1, 2), torch.tensor([5]))]
    with pytest.raises(ValueError, match="labels are out of range"):
        loss_path(model, model, CE, data, ts=(0,), progress=False)


def test_a_loss_that_is_not_finite_is_inf_and_null_in_json():
    start, end = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(start.weight, 0.0)
    nn.init.constant_(end.weight, 1e38)
    data = [(torch.ones(1, 1), torch.zeros(1).long())]
    path = loss_path(start, end, square, data, ts=(0, 1), progress=False)
    assert path.points[1].clean_loss == math.inf
    assert (
        json.loads(json.dumps(path.as_dict(), allow_nan=False))["points"][1]["clean_loss"] is None
    )


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (nn.Linear(3, 2), r"weight is \(2, 2\) of torch.float32 in one, \(2, 3\)"),
        (nn.Linear(2, 2).double(), "of torch.float64 in the other"),
        (nn.Linear(2, 2, bias=False), "bias is in one of them alone"),
    ],
)
def test_models_that_differ_in_kind_get_one_line(other, said):
    data = [(torch.ones(1, 2), torch.zeros(1).long())]
    with pytest.raises(ValueError, match=said):
        loss_path(nn.Linear(2, 2), other, CE, data, progress=False)


def test_weights_and_places_of_nan_are_refused():
    data = [(torch.ones(1, 2), torch.zeros(1).long())]
    broken = nn.Linear(2, 2)
    nn.init.constant_(broken.weight, math.nan)
    with pytest.raises(ValueError, match="weight holds NaN or inf"):
        loss_path(nn.Linear(2, 2), broken, CE, data, progress=False)
    with pytest.raises(ValueError, match="must be finite"):
        loss_path(nn.Linear(2, 2), nn.Linear(2, 2), CE, data, ts=(math.nan,), progress=False)


@pytest.mark.parametrize("data", [[], iter([])])
def test_data_that_yields_nothing_or_only_once_gets_one_line(data):
    with pytest.raises(ValueError, match="data"):
        loss_path(nn.Linear(2, 2), nn.Linear(2, 2), CE, data, progress=False)


def test_a_difference_is_no_data_of_a_path(images):
    with pytest.raises(ValueError, match="got a Difference"):
        loss_path(convnet(0), convnet(1), CE, Difference(images, images), progress=False)
