"""The grid made small: its rows, its order, what is not computed again, parts and time limits."""

import time
from dataclasses import replace

import pytest
from msgspec import structs
from rich.console import Console

from d3fast.benchmark.attack_jobs import AttackJob, AttackPreset, CleanJob
from d3fast.benchmark.grid import run_grid
from d3fast.benchmark.plan import Ablation, BenchmarkPreset, plan_jobs, select_defenses
from d3fast.benchmark.relearning import RelearnConfig
from d3fast.benchmark.relearning_jobs import RelearningJob
from d3fast.benchmark.repair_jobs import DefenseSpec, RepairJob
from d3fast.results.jobs import CachedJob, RunDir, key_of
from d3fast.results.schema import benchmark
from d3fast.results.schema.benchmark import CleanRow, DefenseRow, SuspectRow
from d3fast.results.schema.fields import tag_of
from tests.benchmark.small import small_spec
from tests.processes import interrupt, python, wait_until

FT, D3 = DefenseSpec("fine-tuning", ({"epochs": 1},)), DefenseSpec("d3", ({"epochs": 1},))
SMALL = BenchmarkPreset(
    suspects=(
        AttackPreset(
            small_spec(train=96, clean=100, batch_size=32, lr=0.1),
            attacks=(("badnets", None), ("blended", None)),
        ),
    ),
    defenses=(FT, D3),
    clean=50,
    batch_size=25,
    seeds=1,
    relearning=(("badnets", None),),
    ks=(1, 5),
    relearn=RelearnConfig(steps=2, batch_size=8),
    ablations=(
        Ablation("poison ratio", 0.05, D3, ratio=0.05),
        Ablation("poison ratio", 0.1, D3, ratio=0.1),
        Ablation("clean share", 0.15, D3, clean=30),
    ),
    ablated=(("badnets", None),),
)
ONE = (replace(SMALL.suspects[0], attacks=(("badnets", None),)),)
ALL = 1 + 3 + (4 + 2) + 4  # clean models, suspects, repairs, relearning


def run(folder, preset=SMALL, seeds=(0,), **options):
    return run_grid(preset, RunDir(folder), seeds=seeds, **{"progress": False, **options})


def counted(outcome, kind, **marks):
    return [
        row
        for row in outcome.rows
        if tag_of(type(row)) == kind
        and all(getattr(row, key) == value for key, value in marks.items())
    ]


def point(factor, value):
    return benchmark.Ablation(factor=factor, value=value)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    return folder, run(folder)


def forbid(monkeypatch):
    def work(job, *_):
        raise AssertionError(f"{job.name} was run again")

    monkeypatch.setattr(CachedJob, "run", work)


def test_rows_of_every_kind_are_there(done):
    outcome = done[1]
    assert outcome.missing == 0
    assert [row.attack for row in counted(outcome, "clean")] == ["clean"]
    suspects = counted(outcome, "suspect", ablation=None)
    assert [(row.attack, row.defense) for row in suspects] == [
        ("badnets", "none"),
        ("blended", "none"),
    ]
    repairs = counted(outcome, "repair", ablation=None)
    assert [(row.attack, row.defense) for row in repairs] == [
        ("badnets", "fine-tuning"),
        ("badnets", "d3"),
        ("blended", "fine-tuning"),
        ("blended", "d3"),
    ]
    relearning = counted(outcome, "relearning")
    assert [row.defense for row in relearning] == ["clean model", "none", "fine-tuning", "d3"]
    assert all(row.ks == (0, 1, 5) for row in relearning)


def test_repairs_and_suspects_have_the_same_columns(done):
    keys = {
        tuple(sorted(row.to_row()))
        for row in done[1].rows
        if isinstance(row, (SuspectRow, DefenseRow)) and not row.refused
    }
    assert len(keys) == 1
    assert {
        "kind",
        "seed",
        "attack",
        "adaptive",
        "defense",
        "options",
        "ratio",
        "clean",
        "ablation",
        "acc",
        "asr",
        "ra",
        "floor",
        "ra_ceiling",
        "asr_excess",
        "acc_loss",
        "der",
        "seconds",
        "val_accuracy",
        "epochs",
        "refused",
        "data",
        "model",
    } <= set(keys.pop())


def test_an_ablation_changes_one_thing_and_shares_what_it_does_not_change(done):
    rows = counted(done[1], "repair", ablation=point("poison ratio", 0.05))
    assert [(row.ratio, row.clean, row.attack) for row in rows] == [(0.05, 50, "badnets")]
    (same,) = counted(done[1], "repair", ablation=point("poison ratio", 0.1))
    (standard,) = counted(done[1], "repair", ablation=None, attack="badnets", defense="d3")
    assert structs.replace(same, ablation=None) == standard
    (fewer,) = counted(done[1], "repair", ablation=point("clean share", 0.15))
    assert (fewer.ratio, fewer.clean) == (0.1, 30)


def test_one_clean_model_serves_every_poison_ratio(done):
    assert len(list((done[0] / "cells").glob("digits-seed0-clean-*.json"))) == 1


def test_a_second_run_computes_nothing(done, monkeypatch):
    forbid(monkeypatch)
    folder, outcome = done
    assert run(folder) == outcome


def test_fewer_repairs_and_no_relearning_read_what_is_there(done, monkeypatch):
    forbid(monkeypatch)
    fewer = replace(select_defenses(SMALL, ["d3"]), ablations=(), relearning=())
    outcome = run(done[0], fewer)
    assert outcome.missing == 0
    assert [row.defense for row in counted(outcome, "repair")] == ["d3", "d3"]


def test_a_changed_option_computes_its_own_cells_alone(done, monkeypatch):
    run_again = []

    def work(job, *_):
        run_again.append(job.job)
        return {"seed": 0, "attack": "badnets", "adaptive": None, "refused": "not run"}

    monkeypatch.setattr(CachedJob, "run", work)
    changed = DefenseSpec("fine-tuning", ({"epochs": 1, "lr": 0.02},))
    run(done[0], replace(SMALL, defenses=(changed, D3), relearning=()))
    assert [type(job) for job in run_again] == [RepairJob, RepairJob]
    assert all(job.options[0]["lr"] == 0.02 for job in run_again)


def test_a_model_that_was_not_kept_is_made_again_for_the_relearning_test(tmp_path):
    small = replace(SMALL, defenses=(FT,), ablations=(), suspects=ONE)
    first = run(tmp_path, replace(small, relearning=()))
    assert not list((tmp_path / "models").glob("*-fine-tuning-*"))
    second = run(tmp_path, small)
    (repaired,) = counted(second, "repair")
    (relearned,) = counted(second, "relearning", defense="fine-tuning")
    assert repaired == counted(first, "repair")[0]
    before = relearned.before
    assert (before.images, before.acc) == (repaired.images, repaired.acc)


def test_parts_share_out_the_suspects_and_their_rows_come_together(done):
    whole = plan_jobs(SMALL, (0, 1))
    parts = [whole.part(number, 2) for number in (1, 2)]
    for name in ("suspects", "repairs", "relearning"):
        keys = [{key_of(p.job) for p in getattr(part, name)} for part in parts]
        assert not keys[0] & keys[1]
        assert keys[0] | keys[1] == {key_of(p.job) for p in getattr(whole, name)}
    for part in parts:
        clean = {key_of(p.job) for p in part.clean_models}
        assert {key_of(p.suspect.clean_job) for p in part.suspects} == clean


def test_a_part_reports_what_the_others_have_to_do(tmp_path):
    small = replace(SMALL, defenses=(FT,), ablations=(), relearning=())
    first = run(tmp_path, small, part=(1, 2))
    assert {row.attack for row in counted(first, "repair")} == {"badnets"}
    assert first.missing == 2
    second = run(tmp_path, small, part=(2, 2))
    assert {row.attack for row in counted(second, "repair")} == {"badnets", "blended"}
    assert second.missing == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_no_job_starts_after_the_deadline(tmp_path, workers, monkeypatch):
    forbid(monkeypatch)
    outcome = run(tmp_path, minutes=0, devices=["cpu"] * workers)
    assert (outcome.rows, outcome.missing) == ([], ALL)


def test_what_was_begun_in_time_is_finished_and_told(tmp_path, monkeypatch):
    clock = iter([0.0, 0.0, *[61.0] * 100])  # after the first job the time is over
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    small = replace(SMALL, defenses=(FT,), ablations=(), relearning=(), suspects=ONE)
    outcome = run(tmp_path, small, minutes=1)
    assert [type(row) for row in outcome.rows] == [CleanRow]
    assert outcome.missing == 2
    monkeypatch.undo()
    assert run(tmp_path, small, minutes=10).missing == 0


@pytest.mark.parametrize(
    ("part", "error_text"),
    [
        ((3, 2), r"part must be 1\.\.2 of 2, got 3"),
        ((1, 0), "parts must be an integer >= 1, got 0"),
    ],
)
def test_a_part_that_does_not_exist_is_refused(tmp_path, part, error_text):
    with pytest.raises(ValueError, match=error_text):
        run(tmp_path, part=part)


def test_a_refused_suspect_has_rows_that_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr("d3fast.training.metrics.MAX_FLOOR", -1.0)
    preset = replace(SMALL, defenses=(FT,), ablations=())
    outcome = run(tmp_path, preset)
    assert outcome.missing == 0
    for kind in ("suspect", "repair", "relearning"):
        rows = counted(outcome, kind)
        assert rows
        assert all("measures nothing" in row.refused for row in rows)


def test_the_means_so_far_stand_above_the_bar(done, monkeypatch, capsys):
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "100")
    run(done[0], progress=True)
    shown = capsys.readouterr().err
    assert "means so far" in shown
    assert "fine-tuning" in shown
    monkeypatch.undo()
    run(done[0], progress=True)
    assert capsys.readouterr().err == ""


LONG = """
from pathlib import Path
from dataclasses import replace
from d3fast.attacks import TrainConfig
from d3fast.benchmark.attack_jobs import AttackPreset
from d3fast.results.jobs import RunDir
from d3fast.benchmark.grid import run_grid
from d3fast.benchmark.plan import BenchmarkPreset
from d3fast.benchmark.repair_jobs import DefenseSpec
from d3fast.benchmark.implant import AttackSpec
import torch

torch.set_num_threads(1)
defenses = (DefenseSpec("fine-tuning", ({"epochs": 100_000},)),)
base = AttackSpec(data="digits", model="preact_resnet_tiny", attack=None, train=300, clean=100,
               training=TrainConfig(epochs=3, batch_size=32, lr=0.1))
suspects = (AttackPreset(base, (("badnets", None),)),)
preset = BenchmarkPreset(suspects, defenses, clean=50, batch_size=25)
run_grid(preset, RunDir(Path.cwd()), seeds=[0], progress=False)
"""


def test_ctrl_c_leaves_whole_rows_and_nothing_else(tmp_path):
    (tmp_path / "long.py").write_text(LONG)
    with python("long.py", cwd=tmp_path) as process:
        wait_until(lambda: list(tmp_path.glob("cells/*badnets*")), seconds=300)
        time.sleep(0.5)
        interrupt(process)
    names = sorted(path.name for path in (tmp_path / "cells").iterdir())
    assert [name.split("-")[2] for name in names] == ["badnets", "clean"]
    assert not list(tmp_path.rglob(".*"))


def test_cells_come_after_those_they_hang_on():
    kinds = [type(planned.job) for planned in plan_jobs(SMALL, (0,)).all]
    order = [CleanJob, AttackJob, RepairJob, RelearningJob]
    assert kinds == sorted(kinds, key=order.index)
