"""``d3fast benchmark`` and ``d3fast benchmark attacks``."""

import json

import pytest

from d3fast.benchmark.attack_jobs import AttackPreset
from d3fast.benchmark.plan import BenchmarkPreset
from d3fast.benchmark.repair_jobs import DefenseSpec
from tests.benchmark.small import learned_spec, small_spec


def test_benchmark_attacks_goes_on_where_it_stopped(call, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "d3fast.cli.benchmark.ATTACK_PRESETS",
        {"small": AttackPreset(small_spec(), (("badnets", None),), seeds=1)},
    )
    line = f"benchmark attacks --preset small --devices cpu --out {tmp_path}"
    assert call(line).exit_code == 0
    rows = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(rows) == 2
    assert call(line).exit_code == 0
    assert rows == {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    document = json.loads((tmp_path / "attacks.json").read_text())
    assert document["command"] == "d3fast benchmark attacks --preset small --seeds 1"
    result = call("benchmark attacks --preset large --out", tmp_path)
    assert (result.exit_code, result.output) == (
        2,
        "error: preset must be one of 'small', got 'large'\n",
    )


@pytest.fixture
def small_grid(monkeypatch):
    """One attack, two defences of one epoch."""
    defenses = (DefenseSpec("d3", ({"epochs": 1},)), DefenseSpec("fine-tuning", ({"epochs": 1},)))
    grid = BenchmarkPreset(
        (AttackPreset(learned_spec(), (("badnets", None),)),),
        defenses,
        clean=40,
        batch_size=20,
        seeds=1,
    )
    monkeypatch.setattr("d3fast.cli.benchmark.BENCHMARK_PRESETS", {"small": grid})


def _benchmark(call, out, arguments):
    return call(f"benchmark --preset small --devices cpu {arguments} --out", out)


def test_benchmark_writes_its_table_and_goes_on_where_it_stopped(call, small_grid, tmp_path):
    first = _benchmark(call, tmp_path, "--defenses d3 --first-seed 2")
    assert first.exit_code == 0, first.output
    rows = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(rows) == 3
    again = _benchmark(call, tmp_path, "--first-seed 2 --no-ablations --no-relearning")
    assert again.exit_code == 0, again.output
    assert len(list((tmp_path / "cells").iterdir())) == 4
    assert all(path.stat().st_mtime_ns == when for path, when in rows.items())
    document = json.loads((tmp_path / "table.json").read_text())
    assert document["command"] == (
        "d3fast benchmark --preset small --seeds 1 --first-seed 2 --no-ablations --no-relearning"
    )
    assert [row["defense"] for row in document["rows"]] == [
        "clean model",
        "none",
        "d3",
        "fine-tuning",
    ]
    assert str(tmp_path) not in json.dumps(document)


def test_benchmark_takes_another_ratio_and_other_clean_samples(call, small_grid, tmp_path):
    chosen = "--ratio 0.05 --mapping all-to-all --clean 30 --rare-class 2 --corruption blur"
    result = _benchmark(call, tmp_path, f"--defenses d3 {chosen}")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "table.json").read_text())
    assert document["command"].endswith(chosen)
    assert [row["clean"] for row in document["rows"]] == [None, None, 30]
    assert [row["ratio"] for row in document["rows"]] == [None, 0.05, 0.05]
    (suspects,) = document["settings"]["suspects"]
    assert suspects["base"]["mapping"] == "all-to-all"
    assert document["settings"]["shift"] == {"rare_class": 2, "corruption": "blur"}


def test_benchmark_logs_the_epochs_of_every_repair(call, small_grid, tmp_path):
    result = _benchmark(call, tmp_path, "--log jsonl")
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "log").glob("*/epochs.jsonl"))
    assert [len(path.read_text().splitlines()) for path in files] == [2, 2]
    keys = {path.stem for path in (tmp_path / "cells").iterdir()}
    assert {path.parent.name for path in files} <= keys
    first = json.loads(files[0].read_text().splitlines()[0])
    assert first["settings"]["defense"] == "d3"


def test_benchmark_says_what_is_left_when_its_time_is_up(call, small_grid, tmp_path):
    result = _benchmark(call, tmp_path, "--minutes 0")
    assert (result.exit_code, result.output) == (0, "No job was started; 4 are left.\n")
    part = _benchmark(call, tmp_path, "--seeds 2 --part 2/2 --defenses fine-tuning")
    assert part.exit_code == 0, part.output
    assert "3 jobs have not been run yet" in part.output


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        ("--preset large", "preset must be one of 'small', got 'large'"),
        ("--attacks bad", "attack must be one of 'badnets'"),
        ("--defenses d3,d4", "defence must be one of 'd3', 'fine-tuning', 'fine-pruning', "),
        ("--dataset mnist", "dataset must be one of 'digits'"),
        ("--model resnet", "resnet"),
        ("--corruption fog", "corruption must be one of 'noise'"),
        ("--mapping one", "mapping must be one of 'all-to-one', 'all-to-all', 'clean-label', got"),
        ("--ratio 1.5", "ratio must be in (0, 1), got 1.5"),
        ("--clean 0", "clean must be an integer >= 1, got 0"),
        ("--part half", "part must be I/N, as in 1/4, got 'half'"),
        ("--part 3/2", "part must be 1..2 of 2, got 3"),
        ("--devices warp", "device must be"),
    ],
)
def test_benchmark_says_in_one_line_what_it_cannot_use(
    call, small_grid, tmp_path, arguments, error_text
):
    result = _benchmark(call, tmp_path / "new", arguments)
    assert result.exit_code == 2
    (line,) = result.output.strip().splitlines()
    assert line.startswith("error: ")
    assert error_text in line


def test_benchmark_alone_explains_itself_and_its_options_come_after_the_sub_command(call):
    assert "--preset" in call("benchmark").output
    result = call("benchmark --seeds 2 attacks")
    assert (result.exit_code, result.output) == (2, "error: --seeds must come after attacks\n")


def test_device_and_workers_still_work_and_warn(call, small_grid, tmp_path):
    result = call("benchmark --preset small --minutes 0 --workers 1 --out", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stderr == "warning: --device and --workers are now --devices\n"
