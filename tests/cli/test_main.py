"""The command line as a whole: help, versions, errors, Ctrl-C."""

import json
import signal
import time

import pytest
import torch
import typer

import d3fast
from d3fast import cli
from d3fast.cli.exit_codes import DEFECT
from d3fast.runtime import environment
from tests.processes import interrupt, python, wait_until

COMMANDS = sorted(typer.main.get_command(cli.app).commands)


def test_without_arguments_it_explains_itself(call):
    result = call()
    assert "demo" in result.output
    assert "env" in result.output


def test_version(call):
    assert call("--version").output == f"d3fast {d3fast.__version__}\n"


def test_env_prints_what_was_built_and_what_it_runs_on(call):
    result = call("env")
    assert result.exit_code == 0
    labels = [line.split("  ")[0] for line in result.output.splitlines()]
    for label in (
        "torch",
        "gpus",
        "cpu",
        "extension compiler",
        "extension simd level",
        "extension cuda archs",
    ):
        assert label in labels


def test_env_as_json_is_json(call):
    assert json.loads(call("env --json").output) == dict(environment.describe())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_h(call, command):
    result = call(f"{command} -h")
    assert result.exit_code == 0
    assert result.output == call(f"{command} --help").output
    assert "Usage:" in result.output


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "env"])
def test_a_name_that_is_not_utf_8_is_refused_before_anything_is_computed(call, command, tmp_path):
    name = "bad\udcff.pt"  # the byte 0xff in a file name, as Python holds it
    result = call(command, "--checkpoint", tmp_path / name)
    assert result.exit_code == 2
    assert result.stderr == f"error: '{tmp_path}/bad\\udcff.pt' is not UTF-8; rename the file\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("defect", [KeyError("defect"), RuntimeError("defect")])
def test_a_defect_has_a_traceback_and_a_code_that_no_finding_has(call, monkeypatch, defect):
    def broken():
        raise defect

    monkeypatch.setattr(environment, "describe", broken)
    result = call("env")
    assert result.exit_code == DEFECT == 70
    assert "Traceback" in result.stderr
    assert type(defect).__name__ in result.stderr.splitlines()[-1]


def test_an_import_that_fails_has_the_code_of_a_defect(tmp_path):
    (tmp_path / "typer.py").write_text("raise RuntimeError('broken')\n")
    with python("-m", "d3fast", "env", cwd=tmp_path) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == DEFECT
    assert errors.endswith("RuntimeError: broken\n")


@pytest.mark.parametrize("command", ["check", "repair", "inspect", "detox", "pilot", "spectrum"])
def test_no_model_stands_in_for_one_that_was_not_named(call, command):
    result = call(f"{command} --data clean.npz")
    assert result.exit_code == 2
    assert "Missing" in result.output
    assert "model" in result.output.lower()


def test_shell_completion_can_be_installed(call):
    assert "--install-completion" in call("--help").output


def test_wrong_usage_is_code_2(call):
    assert call("env --nonsense").exit_code == call("nonsense").exit_code == 2


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**60), lambda: bytearray(2**60)])
def test_too_little_memory_is_one_line(call, monkeypatch, allocate):
    monkeypatch.setattr(environment, "describe", allocate)
    result = call("env")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: out of memory: ")
    assert result.stderr.count("\n") == 1


def test_ctrl_c_ends_with_one_line_and_leaves_nothing_half_written(tmp_path):
    before = tmp_path.stat().st_mtime_ns
    with python("-m", "d3fast", "demo", "--out", tmp_path / "out") as process:
        wait_until(lambda: tmp_path.stat().st_mtime_ns > before)  # the folder was tried
        time.sleep(1.0)
        _, stderr = interrupt(process, presses=2)
    assert process.returncode == -signal.SIGINT
    assert stderr == "interrupted\n"
    assert list(tmp_path.iterdir()) == []
