"""The stages of the GPU check: their limits, their files, and what a machine without a GPU says."""

import json

import pytest
import torch

from benchmarks.gpu import check, stages
from benchmarks.gpu.figures import Figure
from benchmarks.gpu.stages import MOST_SECONDS, STAGES, Stage, Step, worker
from benchmarks.gpu.tools import Done, Failed, Skipped
from d3fast.results.store import read_results


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("number", [s.number for s in STAGES])
def test_without_a_gpu_a_stage_ends_with_one_line_and_2(number, tmp_path, capsys):
    assert check.main(["--stage", str(number), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr() == ("", "gpu-check: torch sees no GPU\n")
    assert list(tmp_path.iterdir()) == []


def test_there_are_eight_stages_in_order():
    assert [stage.number for stage in STAGES] == list(range(1, 9))
    assert all(stage.steps[0] is stages.BUILD for stage in STAGES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: str(stage.number))
def test_a_stage_takes_less_than_nine_minutes(stage):
    assert MOST_SECONDS <= 540
    assert sum(step.seconds for step in stage.steps) <= MOST_SECONDS


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: str(stage.number))
@pytest.mark.parametrize("build", [0, stages.BUILD.seconds])
def test_every_step_has_its_time_whatever_the_others_take(stage, build):
    left = MOST_SECONDS - build
    for at in range(1, len(stage.steps)):
        limit = stage.limit(at, left)
        assert limit >= stage.steps[at].seconds
        left -= limit
    assert left >= 0


@pytest.fixture
def gpu(monkeypatch):
    """A machine that is said to have an H200, and one stage with the given steps."""
    monkeypatch.setattr(check, "capability", lambda: "90")
    monkeypatch.setattr(check, "machine_name", lambda device: "h200")

    def use(*steps):
        build = Step("build", 10, lambda seconds: [])
        stage = Stage(4, "a stage", (build, *(Step(f"s{i}", 10, f) for i, f in enumerate(steps))))
        monkeypatch.setattr(check, "STAGES", (stage,))

    return use


def passes(seconds):
    return [Figure("copy", 4.3, "TB/s")]


def fails(seconds):
    raise Failed("it broke", [Figure("copy", 1.0, "TB/s")])


def skips(seconds):
    raise Skipped("no tool")


def crashes(seconds):
    raise ZeroDivisionError("division by zero")


def rows_of(path):
    return read_results(next(path.glob("gpu-check-4-h200-*.json"))).rows


def test_a_stage_writes_one_file_with_figures_beside_predictions(gpu, tmp_path, capsys):
    gpu(passes, skips)
    assert check.main(["--stage", "4", "--out", str(tmp_path)]) == 0
    build, first, figure, second = rows_of(tmp_path)
    assert (build["step"], first["outcome"], second["reason"]) == ("build", "passed", "no tool")
    assert (figure["name"], figure["value"], figure["as_predicted"]) == ("copy", 4.3, True)
    assert "predicted 4-4.6  as predicted" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    document = json.loads(path.read_text())
    assert document["command"] == "python -m benchmarks.gpu.check --stage 4"


@pytest.mark.parametrize("broken", [fails, crashes])
def test_a_step_that_fails_does_not_stop_the_next(gpu, tmp_path, broken):
    gpu(broken, passes)
    assert check.main(["--stage", "4", "--out", str(tmp_path)]) == 1
    outcomes = [row["outcome"] for row in rows_of(tmp_path) if row["kind"] == "gpu-step"]
    assert outcomes == ["passed", "failed", "passed"]
    measured = [row["value"] for row in rows_of(tmp_path) if row["kind"] == "gpu-figure"]
    assert measured == ([1.0, 4.3] if broken is fails else [4.3])


@pytest.mark.parametrize("broken", [fails, skips])
def test_without_a_build_nothing_else_runs(gpu, tmp_path, monkeypatch, broken):
    stage = Stage(4, "a stage", (Step("build", 10, broken), Step("other", 10, passes)))
    gpu()
    monkeypatch.setattr(check, "STAGES", (stage,))
    assert check.main(["--stage", "4", "--out", str(tmp_path)]) == 1
    assert [r["step"] for r in rows_of(tmp_path) if r["kind"] == "gpu-step"] == ["build"]


def test_a_step_that_no_time_is_left_for_is_skipped():
    row, figures = check.run_step(Step("late", 10, passes), 3.0)
    assert (row["outcome"], row["reason"]) == ("skipped", "the time limit of the stage is reached")
    assert figures == []


def test_a_workers_figures_are_kept_when_it_is_killed(monkeypatch):
    line = 'figure: {"name": "copy", "value": 4.3, "unit": "TB/s"}\n'
    monkeypatch.setattr(stages, "run_module", lambda *arguments: Done(None, line))
    with pytest.raises(Failed, match="time limit") as error:
        worker("ceiling")(1.0)
    assert error.value.figures == [Figure("copy", 4.3, "TB/s")]


def test_a_worker_may_say_that_it_cannot_run(monkeypatch):
    monkeypatch.setattr(stages, "run_module", lambda *a: Done(0, "skipped: too little memory\n"))
    with pytest.raises(Skipped, match="too little memory"):
        worker("endurance", "huge")(1.0)
