"""``d3fast pilot``: what a user types, what is printed, what is in the folder."""

import json
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest
from typer.testing import CliRunner

from d3fast import D3Config, cli
from d3fast.attacks import BadNets, save_attack
from d3fast.detox import read_config, save_weights
from d3fast.models import make_model
from d3fast.results.store import read_results
from tests.processes import alive_in_group, interrupt, needs_proc, python, wait_until

SHORT = ["--trials", "2", "--epochs", "2", "--seed", "0", "--devices", "cpu"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A checkpoint of random weights, clean samples, a trigger, and a factory in a module."""
    place = tmp_path_factory.mktemp("files")
    draws = np.random.default_rng(0)
    np.savez(
        place / "clean.npz",
        images=draws.integers(0, 256, (40, 8, 8), np.uint8),
        labels=np.arange(40) % 4,
    )
    save_weights(make_model("preact_resnet_tiny", 4, 1), place / "suspect.safetensors")
    save_attack(BadNets(target=1, size=2, margin=0), place / "trigger.safetensors", "badnets")
    (place / "mine.py").write_text(
        "from torch import nn\n"
        "def make(num_classes):\n"
        "    class Local(nn.Linear):\n"
        "        pass\n"
        "    return nn.Sequential(nn.Flatten(), Local(64, num_classes))\n"
        "class Mine(nn.Sequential):\n"
        "    def __init__(self, num_classes):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    return place


@pytest.fixture
def arguments(files, tmp_path):
    model = f"--model preact_resnet_tiny --checkpoint {files}/suspect.safetensors"
    return f"pilot {model} --data {files}/clean.npz --out {tmp_path}/audit".split()


def call(*arguments):
    return CliRunner().invoke(cli.app, [*arguments, "--no-progress"])


def test_it_writes_rows_and_a_configuration_and_prints_what_comes_next(arguments, tmp_path):
    result = call(*arguments, *SHORT)
    assert result.exit_code == 0, result.output
    place = tmp_path / "audit"
    assert {path.name for path in place.iterdir()} == {"pilot.json", "pilot.toml"}
    document = read_results(place / "pilot.json")
    kinds = [row["kind"] for row in document.rows]
    assert kinds == ["suspect", *["trial"] * 3, *["sensitivity"] * 3, "recommendation"]
    assert document.settings["finished"]
    assert document.settings["rungs"] == [[2, 1], [1, 2]]
    assert document.settings["config"] == json.loads(json.dumps(asdict(D3Config.auto())))
    (line,) = [line for line in result.output.splitlines() if line.startswith("Next step: ")]
    words = shlex.split(line)
    assert words[2:5] == ["d3fast", "repair", "preact_resnet_tiny"]
    assert words[words.index("--config") + 1] == str(place / "pilot.toml")
    assert words[words.index("--checkpoint") + 1].endswith("suspect.safetensors")
    assert "95 %" in result.output


def test_detox_takes_the_configuration_that_was_recommended(arguments, tmp_path):
    call(*arguments, *SHORT, "--max-acc-drop", "2.5")
    place = tmp_path / "audit"
    *_, chosen = read_results(place / "pilot.json").rows
    config = read_config(place / "pilot.toml")
    for name in ("distance_weight", "clean_weight", "epsilon"):
        assert getattr(config, name) == chosen[name]
    assert (config.dual_step, config.max_acc_drop) == (0.0, 2.5)


def test_no_folder_is_named_in_the_results(arguments, files, tmp_path):
    call(*arguments, *SHORT, "--trigger", str(files / "trigger.safetensors"))
    text = (tmp_path / "audit" / "pilot.json").read_text()
    assert str(tmp_path) not in text
    assert files.name not in text
    assert json.loads(text)["settings"]["trigger"] == "trigger.safetensors"


def test_a_trigger_has_a_column_of_its_own_and_is_in_the_rows(arguments, files, tmp_path):
    result = call(*arguments, *SHORT, "--trigger", str(files / "trigger.safetensors"))
    assert "trig. %" in result.output
    suspect, *_ = read_results(tmp_path / "audit" / "pilot.json").rows
    assert suspect["asr"] is not None
    assert "trig. %" not in call(*arguments, *SHORT).output


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--trials", "28"], "trials must be <= 27"),
        (["--devices", "warp"], "device must be"),
        (["--devices", ""], "device must be"),
        (["--devices", "cpu,cuda:99"], "not available"),
        (["--max-acc-drop", "-1"], "max_acc_drop must be"),
        (["--trigger", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--data", "nowhere"], "nowhere is missing"),
    ],
)
def test_input_that_cannot_be_used_is_one_line_and_exit_code_2(arguments, tmp_path, extra, message):
    result = call(*arguments, *SHORT, *extra)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert not (tmp_path / "audit" / "pilot.json").exists()


def test_a_folder_in_the_way_of_the_output_is_found_before_anything_is_computed(
    arguments, tmp_path
):
    (tmp_path / "audit").write_text("")
    result = call(*arguments, *SHORT)
    assert (result.exit_code, "a file is in the way" in result.stderr) == (2, True)


@pytest.fixture
def own_model(files, tmp_path):
    """Runs d3fast in the folder of the user's own module, in processes."""

    def run(name):
        model = make_from(files, name)
        save_weights(model, tmp_path / "own.safetensors")
        line = f"pilot --model mine:{name} --checkpoint {tmp_path}/own.safetensors --data clean.npz"
        line += f" --out {tmp_path}/out --trials 2 --epochs 2 --seed 0 --devices cpu,cpu"
        line += " --fail-on none"  # random weights: no setting need be within the limit
        return subprocess.run(
            [sys.executable, "-m", "d3fast", *line.split()],
            cwd=files,
            capture_output=True,
            text=True,
            timeout=120,
        )

    return run


def make_from(files, name):
    scope = {}
    exec((files / "mine.py").read_text(), scope)
    return scope[name](num_classes=4)


def test_workers_find_a_model_of_the_folder_that_it_is_started_in(own_model, tmp_path):
    done = own_model("Mine")
    assert done.returncode == 0, done.stderr
    assert read_results(tmp_path / "out" / "pilot.json").settings["devices"] == ["cpu", "cpu"]


def test_a_model_that_cannot_travel_is_one_line_that_says_what_to_do(own_model):
    done = own_model("make")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the model cannot be sent to other processes (")
    assert done.stderr.endswith("use one device\n")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def started(arguments, tmp_path):
    """A long pilot with two workers, from when it has tried its folder."""
    long = ["--trials", "2", "--epochs", "200", "--devices", "cpu:2"]
    before = tmp_path.stat().st_mtime_ns
    with python("-m", "d3fast", *arguments, *long) as process:
        wait_until(lambda: tmp_path.stat().st_mtime_ns > before)
        yield process


def interrupt_quietly(process):
    """Ctrl-C; returns what was printed."""
    stdout, stderr = interrupt(process)
    assert process.returncode == -signal.SIGINT
    assert stderr == "interrupted\n"
    wait_until(lambda: not alive_in_group(process.pid))
    return stdout


@needs_proc
def test_ctrl_c_ends_the_workers_and_leaves_the_rungs_that_are_complete(started, tmp_path):
    place = tmp_path / "audit"
    wait_until((place / "pilot.toml").exists)
    assert "has 1 of 2 rungs" in interrupt_quietly(started).replace("\n", " ")
    document = read_results(place / "pilot.json")
    assert (document.settings["finished"], document.settings["rungs_done"]) == (False, 1)
    assert sum(row["kind"] == "trial" for row in document.rows) == 2
    assert {path.name for path in place.iterdir()} == {"pilot.json", "pilot.toml"}


@needs_proc
def test_ctrl_c_while_workers_start_is_as_quiet(started, tmp_path):
    time.sleep(1.0)
    interrupt_quietly(started)
    assert list(tmp_path.iterdir()) == []
