"""One ``on_epoch`` for all trackers."""

import json
from importlib import import_module

import pytest
import torch
from torch import nn

from d3fast import D3Config, detoxify
from d3fast.benchmark.repair_jobs import make_defense
from d3fast.integrations import epoch_log as logs
from d3fast.integrations.epoch_log import EpochLog, epoch_log, parse_trackers
from d3fast.training.loop import Epoch


class Sink:
    def __init__(self):
        self.lines, self.closed = [], 0

    def log(self, step, values):
        self.lines.append((step, values))

    def close(self):
        self.closed += 1


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


LOADER = [(torch.rand(16, 1, 2, 2), torch.arange(16) % 2)]


def test_every_sink_gets_the_numbers_of_an_epoch_that_are_there():
    sinks = [Sink(), Sink()]
    EpochLog(sinks)(Epoch(3, 0.5, 0.25, 0.1), net())
    assert sinks[0].lines == sinks[1].lines == [(3, {"loss": 0.5, "accuracy": 0.25, "lr": 0.1})]


def test_a_repair_is_logged_epoch_by_epoch(tmp_path):
    config = D3Config(epochs=2, backend="reference")
    with epoch_log(("jsonl",), tmp_path / "log", "run", {"lr": 0.1}) as on_epoch:
        result = detoxify(net(), LOADER, config, progress=False, on_epoch=on_epoch)
    first, *lines = map(json.loads, (tmp_path / "log" / "epochs.jsonl").read_text().splitlines())
    assert first == {"run": "run", "settings": {"lr": 0.1}}
    assert [line["epoch"] for line in lines] == [1, 2]
    assert [line["distance"] for line in lines] == [e.distance for e in result.history]


def test_the_epochs_of_a_pipeline_are_counted_on():
    sink = Sink()
    both = make_defense("fine-tuning+ft-sam", ({"epochs": 2}, {"epochs": 1}), EpochLog([sink]))
    both(net(), LOADER, None, progress=False)
    assert [step for step, _ in sink.lines] == [1, 2, 3]


def test_a_resumed_repair_keeps_the_numbers_of_its_epochs():
    sink = Sink()
    EpochLog([sink])(Epoch(7, 0.5, 0.25, 0.1), net())
    assert sink.lines[0][0] == 7


def test_without_trackers_nothing_is_opened(tmp_path):
    with epoch_log((), tmp_path / "log", "run") as on_epoch:
        assert on_epoch is None
    assert not (tmp_path / "log").exists()


def test_sinks_are_closed_when_a_repair_fails(tmp_path, monkeypatch):
    sink = Sink()
    monkeypatch.setattr("d3fast.integrations.log_jsonl.open_sink", lambda *_: sink)
    with pytest.raises(KeyError), epoch_log(("jsonl",), tmp_path, "run"):
        raise KeyError
    assert sink.closed == 1


def test_trackers_of_a_command_line_are_checked_before_anything_runs(monkeypatch):
    assert parse_trackers(None) == ()
    assert parse_trackers("jsonl") == ("jsonl",)
    with pytest.raises(ValueError, match=r"log must be one of 'jsonl', 'tensorboard', .*'paper'"):
        parse_trackers("jsonl, paper")
    monkeypatch.setattr(logs, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="log wandb needs wandb: pip install wandb"):
        parse_trackers("wandb")


def test_every_tracker_is_a_module_that_is_imported_without_its_library():
    for name in logs.TRACKERS:
        module = import_module(f"d3fast.integrations.log_{name}")
        assert module.LIBRARY in (None, name)
