# SPDX-License-Identifier: Apache-2.0
"""Which Pythons get a wheel, and that the check of a wheel can fail."""

import importlib.util

import pytest

from tests import wheel_step
from tests.wheels import interpreters

needs_extension = pytest.mark.skipif(
    importlib.util.find_spec("d3fast._C") is None, reason="d3fast was built without its extension"
)


@pytest.fixture
def python(tmp_path):
    """Make an executable that prints a line in place of an interpreter's answer."""

    def make(name, answer, code=0):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho '{answer}'\nexit {code}\n")
        path.chmod(0o755)
        return str(path)

    return make


def test_each_version_has_the_first_interpreter_that_can_build(python):
    own, second, threads = python("a", "3 11 "), python("b", "3 11 "), python("c", "3 13 t")
    broken, old = python("d", "", code=1), python("e", "3 9 ")
    found = interpreters([own, broken, second, old, threads])
    assert found == {"3.11": own, "3.13t": threads}


@needs_extension
def test_the_steps_of_this_installation_are_right(capsys):
    wheel_step.main([])
    assert "3 steps right to" in capsys.readouterr().out


@needs_extension
def test_a_wrong_step_is_noticed(monkeypatch):
    wrong = ([0.0] * wheel_step.NUMEL, 1.0)
    monkeypatch.setattr(wheel_step, "by_formula", lambda *_: wrong)
    with pytest.raises(SystemExit, match="wrong step"):
        wheel_step.main([])
