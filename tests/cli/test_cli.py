"""The command line: what a user types, what comes back, and with which exit code."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import d3fast
from d3fast import cli
from d3fast.attacks import TrainConfig
from d3fast.benchmark import demo, presets
from d3fast.benchmark.attack_jobs import Preset
from d3fast.benchmark.implant import Implant
from d3fast.benchmark.plan import GridPreset
from d3fast.benchmark.repair_jobs import Repair
from d3fast.io.files import sha256
from d3fast.runtime import environment
from tests.processes import interrupt, python, wait_until


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
    assert json.loads(call("env", "--json").output) == dict(environment.describe())


def test_demo_writes_its_files_and_prints_its_table(call, small, tmp_path):
    out = tmp_path / "new" / "run"
    result = call("demo", "--seeds", "2", "--first-seed", "3", "--out", str(out), "--device", "cpu")
    assert result.exit_code == 0, result.output
    files = {
        "demo.png",
        "clean.npz",
        "results.json",
        "backdoored.safetensors",
        "fine-tuned.safetensors",
        "repaired.safetensors",
        "backdoored.trigger.safetensors",
    }
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


def test_ctrl_c_ends_with_one_line_and_leaves_nothing_half_written(tmp_path):
    with python("-m", "d3fast", "demo", "--out", tmp_path / "out") as process:
        wait_until((tmp_path / "out").exists)
        time.sleep(1.0)
        _, stderr = interrupt(process)
    assert process.returncode == -signal.SIGINT
    assert stderr == "interrupted\n"
    assert list((tmp_path / "out").iterdir()) == []


def test_attack_writes_model_trigger_and_card(call, tmp_path):
    out = tmp_path / "made"
    result = call(
        "attack",
        "--attack",
        "badnets",
        "--model",
        "preact_resnet_tiny",
        "--train",
        "64",
        "--epochs",
        "1",
        "--seed",
        "2",
        "--out",
        str(out),
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    files = {"backdoored.safetensors", "backdoored.trigger.safetensors", "card.json"}
    assert {p.name for p in out.iterdir()} == files
    card = json.loads((out / "card.json").read_text())
    (row,) = card["rows"]
    assert {"attack": "badnets", "target": 0, "ratio": 0.1, "seed": 2}.items() <= row.items()
    assert {"acc", "asr", "ra", "floor"} <= row.keys()
    assert str(tmp_path) not in json.dumps(card)
    again = call(*card["command"].split()[1:], "--out", str(tmp_path / "again"), "--device", "cpu")
    assert again.exit_code == 0, again.output
    (same,) = json.loads((tmp_path / "again" / "card.json").read_text())["rows"]
    assert all(same[key] == row[key] for key in row if not key.endswith("seconds"))


def test_a_factory_of_ones_own_is_found_in_the_current_folder(call, tmp_path, monkeypatch):
    (tmp_path / "my_models_here.py").write_text(
        "from torch import nn\n\n"
        "def small(num_classes, in_channels):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64 * in_channels, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = call(
        "attack",
        "--attack",
        "badnets",
        "--model",
        "my_models_here:small",
        "--train",
        "32",
        "--epochs",
        "1",
        "--no-twin",
        "--out",
        "made",
        "--device",
        "cpu",
    )
    assert result.exit_code == 0, result.output
    assert (tmp_path / "made" / "card.json").exists()


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        (("--attack", "bad"), "attack must be one of 'badnets'"),
        (("--attack", "badnets", "--data", "mnist"), "data must be one of 'digits'"),
        (("--attack", "badnets", "--model", "resnet"), "resnet"),
        (("--attack", "badnets", "--model", "no_such_module:make"), "no_such_module"),
        (("--attack", "badnets", "--target", "10"), "target must be in 0..9, got 10"),
        (("--attack", "badnets", "--ratio", "1.5"), "ratio must be in 0..1, got 1.5"),
        (("--attack", "badnets", "--adaptive", "sam"), "adaptive must be one of 'sam-1'"),
    ],
)
def test_attack_says_in_one_line_what_it_cannot_use(call, tmp_path, arguments, error_text):
    out = tmp_path / "made"
    result = call(
        "attack",
        *arguments,
        "--train",
        "32",
        "--epochs",
        "1",
        "--no-twin",
        "--out",
        str(out),
        "--device",
        "cpu",
    )
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert line.startswith("error: ")
    assert error_text in line
    assert not out.exists() or not list(out.iterdir())


def test_benchmark_attacks_goes_on_where_it_stopped(call, tmp_path, monkeypatch):
    twin = Implant(
        data="digits",
        model="preact_resnet_tiny",
        attack=None,
        train=64,
        clean=0,
        training=TrainConfig(epochs=1),
    )
    monkeypatch.setattr(
        "d3fast.cli.benchmark.PRESETS", {"small": Preset(twin, (("badnets", None),), seeds=1)}
    )
    arguments = (
        "benchmark",
        "attacks",
        "--preset",
        "small",
        "--out",
        str(tmp_path),
        "--workers",
        "1",
        "--device",
        "cpu",
    )
    assert call(*arguments).exit_code == 0
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(cells) == 2
    assert call(*arguments).exit_code == 0
    assert cells == {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    document = json.loads((tmp_path / "attacks.json").read_text())
    assert document["command"] == "d3fast benchmark attacks --preset small --seeds 1"
    result = call("benchmark", "attacks", "--preset", "large", "--out", str(tmp_path))
    assert (result.exit_code, result.output) == (
        2,
        "error: preset must be one of 'small', got 'large'\n",
    )


@pytest.fixture
def small_grid(monkeypatch):
    """One attack, two defences of one epoch."""
    twin = Implant(
        data="digits",
        model="preact_resnet_tiny",
        attack=None,
        train=64,
        clean=50,
        training=TrainConfig(epochs=1),
    )
    repairs = (Repair("d3", ({"epochs": 1},)), Repair("fine-tuning", ({"epochs": 1},)))
    grid = GridPreset(
        (Preset(twin, (("badnets", None),)),), repairs, clean=40, batch_size=20, seeds=1
    )
    monkeypatch.setattr(presets, "PRESETS", {"small": grid})


def _benchmark(call, out, *arguments):
    return call(
        "benchmark",
        "--preset",
        "small",
        "--out",
        str(out),
        "--workers",
        "1",
        "--device",
        "cpu",
        *arguments,
    )


def test_benchmark_writes_its_table_and_goes_on_where_it_stopped(call, small_grid, tmp_path):
    first = _benchmark(call, tmp_path, "--defenses", "d3", "--first-seed", "2")
    assert first.exit_code == 0, first.output
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(cells) == 3
    again = _benchmark(call, tmp_path, "--first-seed", "2", "--no-ablations", "--no-relearning")
    assert again.exit_code == 0, again.output
    assert len(list((tmp_path / "cells").iterdir())) == 4
    assert all(path.stat().st_mtime_ns == when for path, when in cells.items())
    document = json.loads((tmp_path / "table.json").read_text())
    assert document["command"] == (
        "d3fast benchmark --preset small --seeds 1 --first-seed 2 --no-ablations --no-relearning"
    )
    assert [row["defense"] for row in document["rows"]] == [
        "clean twin",
        "none",
        "d3",
        "fine-tuning",
    ]
    assert str(tmp_path) not in json.dumps(document)


def test_benchmark_says_what_is_left_when_its_time_is_up(call, small_grid, tmp_path):
    result = _benchmark(call, tmp_path, "--minutes", "0")
    assert (result.exit_code, result.output) == (0, "No cell was begun, 4 are left.\n")
    part = _benchmark(call, tmp_path, "--seeds", "2", "--part", "2/2", "--defenses", "fine-tuning")
    assert part.exit_code == 0, part.output
    assert "3 cells have not been run yet" in part.output


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        (("--preset", "large"), "preset must be one of 'small', got 'large'"),
        (("--attacks", "bad"), "attack must be one of 'badnets'"),
        (("--defenses", "d3,d4"), "defence must be one of 'd3', 'fine-tuning', got 'd4'"),
        (("--data", "mnist"), "data must be one of 'digits'"),
        (("--model", "resnet"), "resnet"),
        (("--part", "half"), "part must be I/N, as in 1/4, got 'half'"),
        (("--part", "3/2"), "part must be 1..2 of 2, got 3"),
        (("--device", "warp"), "device must be"),
    ],
)
def test_benchmark_says_in_one_line_what_it_cannot_use(
    call, small_grid, tmp_path, arguments, error_text
):
    result = _benchmark(call, tmp_path / "new", *arguments)
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert line.startswith("error: ")
    assert error_text in line


def test_benchmark_alone_explains_itself_and_options_stand_behind_the_sub_command(call):
    assert "--preset" in call("benchmark").output
    result = call("benchmark", "--seeds", "2", "attacks")
    assert (result.exit_code, result.output) == (2, "error: --seeds must stand behind attacks\n")


@pytest.fixture
def checkpoints(call, small, tmp_path):
    """What a short demonstration leaves behind."""
    call("demo", "--seeds", "1", "--out", str(tmp_path / "demo"), "--device", "cpu")
    return tmp_path / "demo"


def _spectrum(call, checkpoints, out, *arguments, model="preact_resnet_tiny"):
    return call(
        "spectrum",
        "--checkpoint",
        str(checkpoints / "backdoored.safetensors"),
        "--model",
        model,
        "--samples",
        "20",
        "--k",
        "1",
        "--probes",
        "1",
        "--steps",
        "2",
        "--out",
        str(out),
        "--device",
        "cpu",
        *arguments,
    )


def test_spectrum_writes_a_page_and_json_for_a_suspect_and_its_repairs(
    call, checkpoints, small_setup, tmp_path
):
    files = {name: str(checkpoints / f"{name}.safetensors") for name in ("fine-tuned", "repaired")}
    result = _spectrum(
        call,
        checkpoints,
        tmp_path / "out",
        "--repaired",
        files["fine-tuned"],
        "--repaired",
        files["repaired"],
        "--trigger",
        str(checkpoints / "backdoored.trigger.safetensors"),
        "--params",
        "head",
        model=small_setup.model,
    )
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "spectrum.json").read_text())
    names = {row["model"] for row in document["rows"]}
    assert names == {"suspect", "fine-tuned", "repaired"}
    assert document["command"].endswith(
        "--samples 20 --params head --kind hessian --k 1 --tol 0.01 --probes 1 --steps 2 --seed 0"
    )
    assert str(tmp_path) not in json.dumps(document)
    settings = document["settings"]
    assert settings["sha256"] == sha256(checkpoints / "backdoored.safetensors")
    assert settings["repaired"] == {name: sha256(Path(path)) for name, path in files.items()}


def test_spectrum_takes_clean_samples_of_ones_own(call, checkpoints, small_setup, tmp_path):
    result = _spectrum(
        call,
        checkpoints,
        tmp_path / "out",
        "--params",
        "head",
        "--data",
        str(checkpoints / "clean.npz"),
        model=small_setup.model,
    )
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "spectrum.json").read_text())
    assert document["settings"]["data"] == "clean.npz"
    assert str(tmp_path) not in json.dumps(document)


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        (("--repaired", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--losses", "backdoor"), "without a trigger there is clean alone"),
        (("--params", "nothing"), "selects no trainable parameter"),
        (("--k", "1000000000"), "k must be at most the"),
        (("--model", "vgg19_bn"), "backdoored.safetensors"),
        (("--kind", "fisher"), "kind must be one of"),
    ],
)
def test_spectrum_says_in_one_line_what_it_cannot_use(
    call, checkpoints, small_setup, tmp_path, arguments, error_text
):
    result = _spectrum(
        call, checkpoints, tmp_path / "out", "--model", small_setup.model, *arguments
    )
    assert result.exit_code == 2, result.output
    (line,) = result.output.strip().splitlines()
    assert line.startswith("error: ")
    assert error_text in line
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
