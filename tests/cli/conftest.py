"""What several command tests share: a way to call a command, and a demonstration made short."""

import pytest
from typer.testing import CliRunner

from d3fast import cli
from d3fast.benchmark import demo


@pytest.fixture
def call():
    """Call ``d3fast`` with arguments of any type."""

    def invoke(*arguments):
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def small(monkeypatch, small_setup):
    """The demonstration, made short."""
    monkeypatch.setattr(demo, "SETUPS", {**demo.SETUPS, "digits": small_setup})
