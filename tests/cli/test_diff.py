"""``d3fast diff``: two models in, a table and rows out."""

import json

import pytest
import torch

from d3fast.hub import Classifier, ImageInput, Suspect
from d3fast.models import make_model


@pytest.fixture
def models(monkeypatch):
    """A base, and a suspect with a change of rank one in one layer and a longer head row."""
    torch.manual_seed(0)
    made = {name: make_model("preact_resnet_tiny", 4, 1) for name in ("base", "suspect")}
    made["suspect"].load_state_dict(made["base"].state_dict())
    head = dict(made["suspect"].named_parameters())["head.weight"]
    with torch.no_grad():
        head[2] += 1

    def resolve(request):
        net = Classifier(made[request.model]).eval()
        return Suspect(net, request.model, request.model, "", ImageInput(1), None, (), "", (), None)

    monkeypatch.setattr("d3fast.cli.diff.resolve", resolve)


def test_the_layer_its_rank_and_the_class_are_shown(models, call, tmp_path):
    result = call("diff base suspect --out", tmp_path / "diff.json")
    assert result.exit_code == 0, result.output
    assert "1 of" in result.stdout
    assert "head.weight" in result.stdout
    assert "1.0 of 4" in result.stdout
    assert "Head rows changed most: class 2" in result.stdout
    document = json.loads((tmp_path / "diff.json").read_text())
    assert document["settings"]["head"] == "head.weight"
    assert {row["kind"] for row in document["rows"]} == {"difference", "head_row"}


def test_equal_models_have_no_table(models, call):
    result = call("diff base base --json")
    assert result.exit_code == 0
    assert "0 of" in result.stderr
    assert all(row["distance"] == 0 for row in json.loads(result.stdout)["rows"])
