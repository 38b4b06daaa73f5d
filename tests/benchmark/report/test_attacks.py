"""What the benchmark of attacks prints and leaves behind."""

import pytest
from msgspec import structs
from rich.console import Console

from d3fast.benchmark.attack_jobs import AttackPreset, run_attacks
from d3fast.benchmark.report.attacks import attack_shortfalls, attacks_markdown, write_attacks
from d3fast.results.jobs import RunDir
from d3fast.results.schema.benchmark import AttackRow, read_attacks
from d3fast.results.store import read_results
from tests.benchmark.small import small_spec

GOOD = AttackRow(
    seed=0,
    attack="badnets",
    mapping="all-to-one",
    acc=0.9,
    asr=0.99,
    floor=0.01,
    acc_loss=0.01,
    ra=0.0,
    ra_ceiling=0.9,
    seconds=1.0,
)
CLEAN = AttackRow(seed=0, attack="clean", acc=0.91, seconds=1.0)


def good(**changes):
    return structs.replace(GOOD, **changes)


def test_an_attack_that_reaches_everything_is_not_mentioned():
    assert attack_shortfalls([CLEAN, GOOD]) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"asr": 0.9}, "badnets, seed 0: ASR 90.0, goal >= 95"),
        ({"acc_loss": 0.02}, "badnets, seed 0: ACC loss 2.0 points, goal <= 1.5"),
        ({"floor": 0.12}, "badnets, seed 0: floor 12.0, goal <= 10"),
        ({"refused": "it measures nothing"}, "badnets, seed 0: it measures nothing"),
    ],
    ids=["ASR", "ACC", "floor", "refused"],
)
def test_what_is_missed_is_said_with_its_number(change, line):
    assert attack_shortfalls([CLEAN, good(**change)]) == [line]


def test_clean_label_attacks_are_asked_for_less():
    assert attack_shortfalls([good(mapping="clean-label", asr=0.85)]) == []
    missed = attack_shortfalls([good(mapping="clean-label", asr=0.75)])
    assert missed == ["badnets, seed 0: ASR 75.0, goal >= 80"]


def test_the_table_has_a_line_per_attack_with_means_over_the_seeds():
    rows = [CLEAN, GOOD, good(seed=1, asr=0.97), good(adaptive="sam-1")]
    lines = attacks_markdown(rows).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "clean",
        "badnets",
        "badnets (sam-1)",
    ]
    assert "98.0 (97.0–99.0)" in lines[3]


def test_a_run_leaves_table_picture_and_json(tmp_path):
    preset = AttackPreset(small_spec(), (("badnets", None), ("badnets", "sam-1")), seeds=1)
    run_dir = RunDir(tmp_path)
    rows = run_attacks(preset, run_dir, seeds=[0], progress=False)
    console = Console(width=120, record=True)
    write_attacks(rows, preset, "d3fast benchmark attacks", run_dir, console)
    assert (tmp_path / "attacks.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "attacks.md").read_text() == attacks_markdown(rows) + "\n"
    assert read_attacks(read_results(tmp_path / "attacks.json").rows) == rows
    text = console.export_text()
    assert "badnets (sam-1)" in text
    assert "Written to" in text


def test_without_any_trigger_there_is_no_picture(tmp_path):
    preset = AttackPreset(small_spec(), (("badnets", None),))
    refused = AttackRow(seed=0, attack="badnets", refused="it measures nothing", floor=0.5)
    rows = [CLEAN, refused]
    console = Console(width=120, record=True)
    write_attacks(rows, preset, "x", RunDir(tmp_path), console)
    assert not (tmp_path / "attacks.png").exists()
    assert "it measures nothing" in console.export_text()
