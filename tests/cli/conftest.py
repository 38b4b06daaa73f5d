"""What several command tests share: a way to call a command, and a short demo."""

import shlex

import pytest
from typer.testing import CliRunner

from d3fast import cli
from d3fast.benchmark.presets import DEMO_PRESETS


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
