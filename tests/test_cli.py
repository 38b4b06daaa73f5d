"""The command line: what a user types, what comes back, and with which exit code."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

import d3fast
from d3fast import cli, demo, environment


@pytest.fixture
def call():
    def invoke(*arguments):
        return CliRunner().invoke(cli.app, list(arguments))

    return invoke


@pytest.fixture
def small(monkeypatch, small_setup):
    """The demonstration, made short."""
    monkeypatch.setattr(demo, "SETUPS", {**demo.SETUPS, "digits": small_setup})


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
    for label in ("torch", "gpus", "cpu", "extension compiler", "extension simd level",
                  "extension cuda archs"):  # fmt: skip
        assert label in labels


def test_env_as_json_is_json(call):
    assert json.loads(call("env", "--json").output) == dict(environment.describe())


def test_demo_writes_its_files_and_prints_its_table(call, small, tmp_path):
    out = tmp_path / "new" / "run"
    result = call("demo", "--seeds", "2", "--first-seed", "3", "--out", str(out), "--device", "cpu")
    assert result.exit_code == 0, result.output
    files = {"demo.png", "results.json", "backdoored.safetensors", "repaired.safetensors"}
    assert {p.name for p in out.iterdir()} == files
    document = json.loads((out / "results.json").read_text())
    assert document["command"] == "d3fast demo --data digits --seeds 2 --first-seed 3"
    assert [row["seed"] for row in document["rows"]] == [3] * 5 + [4] * 5
    assert "2 seeds" in result.output
    assert str(tmp_path) not in (out / "results.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "fashion-mnist", "--data-dir", "nowhere"], "files are not in nowhere"),
        (["--device", "warp"], "device must be"),
        (["--device", "cuda:99"], "not available"),
    ],
)
def test_input_that_cannot_be_used_is_one_line_and_exit_code_2(
    call, small, tmp_path, arguments, message
):
    result = call("demo", "--out", str(tmp_path / "out"), *arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_a_file_in_the_way_of_the_output_is_found_before_anything_is_trained(call, tmp_path):
    (tmp_path / "file").write_text("")
    result = call("demo", "--out", str(tmp_path / "file"))
    assert (result.exit_code, "a file is in the way" in result.stderr) == (2, True)


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--data", "imagenet"], ["--nonsense"]])
def test_wrong_options_are_explained(call, arguments):
    result = call("demo", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_a_defect_keeps_its_traceback(call, monkeypatch):
    def broken():
        raise KeyError("defect")

    monkeypatch.setattr(environment, "describe", broken)
    assert isinstance(call("env").exception, KeyError)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_with_one_line_and_leaves_nothing_half_written(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "d3fast", "demo", "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "out").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert stderr == "interrupted\n"
    assert list((tmp_path / "out").iterdir()) == []
