"""All measurements of a suspect and its repairs."""

import json

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from d3fast.attacks import BadNets
from d3fast.data import ImageData
from d3fast.spectrum import Curvature, CurvatureReportConfig, curvature_report, eigenpairs
from d3fast.training.metrics import evaluate

SMALL = CurvatureReportConfig(k=2, probes=2, steps=4, ts=(0.0, 1.0))


@pytest.fixture
def models():
    def make(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 3))

    return {"suspect": make(0), "tuned": make(1), "d3": make(2)}


@pytest.fixture
def data():
    torch.manual_seed(3)
    return ImageData(torch.rand(18, 1, 8, 8), torch.arange(18) % 3, ("a", "b", "c"))


def test_every_measurement_is_a_row_of_its_kind(models, data):
    rows = curvature_report(models, data, BadNets(target=0), config=SMALL, progress=False)
    found = [(row["kind"], row["model"], row.get("loss")) for row in rows]
    per_model = [("model", None), ("spectrum", "clean"), ("spectrum", "backdoor")]
    expected = [(kind, name, loss) for name in models for kind, loss in per_model]
    per_repair = [
        ("path", None),
        ("prediction", "clean"),
        ("prediction", "backdoor"),
        ("distance", None),
    ]
    expected += [(kind, name, loss) for name in ("tuned", "d3") for kind, loss in per_repair]
    assert found == expected
    json.dumps(rows, allow_nan=False)


def test_without_a_trigger_the_clean_loss_is_all_there_is(models, data):
    rows = curvature_report(models, data, config=SMALL, progress=False)
    assert {row.get("loss") for row in rows} == {None, "clean"}
    assert all(row["asr"] is None for row in rows if row["kind"] == "model")
    config = CurvatureReportConfig(losses=("difference",))
    with pytest.raises(ValueError, match="without a trigger there is clean alone"):
        curvature_report(models, data, config=config, progress=False)


def test_numbers_are_those_of_the_parts(models, data):
    rows = curvature_report(models, data, config=SMALL, progress=False)
    row = next(row for row in rows if row["kind"] == "spectrum" and row["model"] == "d3")
    curvature = Curvature(models["d3"], cross_entropy, list(data.batches(250)))
    pairs = eigenpairs(curvature, 2, tol=SMALL.tol)
    assert row["eigenvalues"] == pairs.values.tolist()
    assert row["products"] == pairs.products + 8
    assert row["value"] == pytest.approx(curvature.value_and_gradient()[0])
    rates = next(row for row in rows if row["kind"] == "model" and row["model"] == "d3")
    assert rates["acc"] == evaluate(models["d3"], data.batches(250), None).acc


def test_one_model_alone_has_a_spectrum(models, data):
    rows = curvature_report({"suspect": models["suspect"]}, data, config=SMALL, progress=False)
    assert [row["kind"] for row in rows] == ["model", "spectrum"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"losses": ()}, "losses must hold one or more"),
        ({"losses": ("poison",)}, "loss must be one of"),
        ({"kind": "fisher"}, "kind must be one of"),
        ({"k": 0}, "k must be an integer >= 1"),
        ({"probes": 0}, "probes must be an integer >= 1"),
        ({"steps": 1.5}, "steps must be an integer >= 1"),
        ({"tol": -1.0}, "tol must be finite and >= 0"),
        ({"seed": -1}, "seed must be an integer >= 0"),
    ],
)
def test_an_option_out_of_range_gets_one_line(options, said):
    with pytest.raises(ValueError, match=said):
        CurvatureReportConfig(**options)


def test_no_model_gets_one_line(data):
    with pytest.raises(ValueError, match="models must hold one or more"):
        curvature_report({}, data, progress=False)
