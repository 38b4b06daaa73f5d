"""What ``d3fast attack`` writes for a model of one's own."""

import io
import json

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from d3fast.audit.resolve import Audit
from d3fast.audit.trigger import load_trigger
from d3fast.benchmark.own_attack import OwnAttack, plant
from d3fast.benchmark.report.own_attack import write_planted
from d3fast.data import ImageData
from d3fast.hub import Classifier, ImageInput, Suspect
from d3fast.hub.factory import WeightsWriter
from d3fast.io.checkpoints import WeightsRead


@pytest.fixture
def audit():
    torch.manual_seed(0)
    net = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 3))).eval()
    images = ImageData(torch.rand(60, 1, 8, 8), torch.arange(60) % 3, tuple("abc"))
    state = net.state_dict()
    read = WeightsRead({n: v.dtype for n, v in state.items()}, {n: n for n in state}, ())
    suspect = Suspect(
        net, "mine", "pkg:make", "Net", ImageInput(1), None, (), 64 * "0", (), WeightsWriter(read)
    )
    return Audit(suspect, images, True, (), 0)


def test_model_trigger_and_card_are_written_together(audit, tmp_path):
    out, text = tmp_path / "out", io.StringIO()
    planted = plant(audit, OwnAttack("badnets", target=1, epochs=1), progress=False)
    path = write_planted(planted, audit, out, Console(file=text, width=120))
    assert path == out / "backdoored.safetensors"
    names = {"backdoored.safetensors", "backdoored.trigger.safetensors", "card.json"}
    assert {file.name for file in out.iterdir()} == names
    written = load_file(path)
    assert all(torch.equal(written[n], value) for n, value in audit.model.state_dict().items())
    trigger = load_trigger(out / "backdoored.trigger.safetensors")
    images = audit.data.images[:4]
    assert torch.equal(trigger.trigger(images), planted.trigger.trigger(images))
    assert "badnets" in text.getvalue()


def test_the_card_has_options_rates_and_a_command_without_folders(audit, tmp_path):
    planted = plant(audit, OwnAttack("badnets", epochs=1, seed=2), progress=False)
    write_planted(planted, audit, tmp_path, Console(file=io.StringIO()))
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["command"].startswith("d3fast attack --model pkg:make --attack badnets")
    assert "--epochs 1" in card["command"]
    assert "--batch" not in card["command"]  # which the command does not take
    assert str(tmp_path) not in json.dumps(card)
    assert card["settings"]["held_out"] == 15
    (row,) = card["rows"]
    assert {"acc", "asr", "floor", "lift"} <= row.keys()
