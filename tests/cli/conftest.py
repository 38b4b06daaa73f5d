"""What several command tests share: a way to call a command, and a short demo."""

import shlex

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from d3fast import cli
from d3fast.benchmark.presets import DEMO_PRESETS
from d3fast.detox import save_weights
from d3fast.models import make_model


@pytest.fixture
def call():
    """Call ``d3fast`` with a line as typed, and further arguments of any type."""

    def invoke(line="", *more):
        return CliRunner().invoke(cli.app, [*shlex.split(line), *map(str, more)])

    return invoke


@pytest.fixture
def small(monkeypatch, demo_preset):
    """The demo, made short."""
    short = {**DEMO_PRESETS, "digits": demo_preset}
    monkeypatch.setattr("d3fast.cli.demo.DEMO_PRESETS", short)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Two models of random weights and clean samples; the head of one is an outlier at class 2."""
    place = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    model = make_model("preact_resnet_tiny", 4, 1)
    save_weights(model, place / "plain.safetensors")
    with torch.no_grad():
        model.head.weight[2] *= 100
    save_weights(model, place / "planted.safetensors")
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)
    np.savez(place / "clean.npz", images=images, labels=np.arange(40) % 4)
    return place
