"""``d3fast repair``: a repaired model in the suspect's format, its documents and the page."""

import json

import pytest
from safetensors.torch import load_file

from d3fast.results.store import read_results


@pytest.fixture
def repair(call, tiny, tmp_path, monkeypatch):
    """Calls the command in an empty folder; short, with the head detector alone."""
    monkeypatch.chdir(tmp_path)

    def invoke(more="", model="planted", command="repair", length="--epochs 1 --restart 0"):
        line = f"{command} preact_resnet_tiny --checkpoint {tiny}/{model}.safetensors"
        line = f"{line} --data {tiny}/clean.npz --detectors head --out audit"
        return call(f"{line} {length if command == 'repair' else ''} {more}")

    return invoke


FILES = {"inspect.json", "card.json", "report.html", "record.json", "repaired.safetensors"}


def names(tmp_path):
    return {path.name for path in (tmp_path / "audit").iterdir()}


def rows(tmp_path, kind):
    return [
        row for row in read_results(tmp_path / "audit" / "card.json").rows if row["kind"] == kind
    ]


def test_one_command_leaves_the_repaired_model_the_documents_and_the_page(repair, tiny, tmp_path):
    result = repair("--max-acc-drop none --fail-on none")
    assert result.exit_code == 0, result.output
    assert names(tmp_path) == FILES
    repaired = load_file(tmp_path / "audit" / "repaired.safetensors")
    assert set(repaired) == set(load_file(tiny / "planted.safetensors"))
    assert [row["role"] for row in rows(tmp_path, "verdict")] == ["suspect", "repaired"]
    assert rows(tmp_path, "verdict")[0]["suspicious"] is True
    assert "repaired.safetensors" in result.stdout


def test_an_inspection_of_the_folder_is_not_repeated(repair, tmp_path, monkeypatch):
    assert repair(command="check").exit_code == 1
    before = (tmp_path / "audit" / "inspect.json").read_bytes()
    monkeypatch.setattr("d3fast.cli.repair.inspect_audit", None)
    assert repair("--fail-on none").exit_code == 0
    assert before == (tmp_path / "audit" / "inspect.json").read_bytes()


def test_the_exit_code_is_about_the_repaired_model_and_the_limit(repair, tmp_path):
    kept = repair()
    flagged = rows(tmp_path, "verdict")[1]["suspicious"]
    assert kept.exit_code == (1 if flagged else 0)
    worse = "--preset authors --clean-weight 0 --lr 5 --max-acc-drop 0 --fail-on accuracy"
    missed = repair(worse)
    lost = rows(tmp_path, "repair")[0]["acc_drop"] > 0
    assert missed.exit_code == (3 if lost else 0)


def test_without_a_limit_of_the_user_it_is_what_the_samples_resolve_and_said(repair, tmp_path):
    output = " ".join(repair("--fail-on none").stdout.split())
    (row,) = rows(tmp_path, "repair")
    assert row["asked_acc_drop"] == 1.0
    assert row["max_acc_drop"] > 10
    assert "The usual limit of 1.0 points was raised" in output
    assert "held-out samples cannot be told from none" in output


def test_a_limit_of_the_user_holds_as_it_is(repair, tmp_path):
    (tmp_path / "d3.toml").write_text("[d3]\nmax_acc_drop = 2.5\n")
    for more, limit in (("--max-acc-drop 1", 1.0), ("--config d3.toml", 2.5)):
        repair(f"--fail-on none {more}")
        (row,) = rows(tmp_path, "repair")
        assert (row["max_acc_drop"], row["asked_acc_drop"]) == (limit, None)


def test_the_interval_of_the_loss_is_paired(repair, tmp_path):
    repair("--fail-on none")
    (row,) = rows(tmp_path, "repair")
    correct = [model["correct"] for model in rows(tmp_path, "model")]
    assert row["lost"] - row["gained"] == correct[0] - correct[1]
    assert row["acc_drop_low"] <= row["acc_drop"] <= row["acc_drop_high"]


def test_json_is_the_card(repair, tmp_path):
    result = repair("--json --fail-on none")
    assert json.loads(result.stdout) == json.loads((tmp_path / "audit" / "card.json").read_text())


def test_fields_of_d3_come_from_a_table_and_the_command_line_overrides_them(repair, tmp_path):
    text = 'preset = "authors"\n[repair]\nheld-out = 0.5\n[d3]\nmomentum = 0.5\nlr = 0.1\n'
    (tmp_path / "d3.toml").write_text(text)
    repair("--config d3.toml --lr 0.2 --fail-on none")
    settings = read_results(tmp_path / "audit" / "card.json").settings
    assert (settings["config"]["momentum"], settings["config"]["lr"]) == (0.5, 0.2)
    assert settings["config"]["schedule"] == "cosine"
    assert settings["options"]["held_out"] == 0.5


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--max-acc-drop soon", "max_acc_drop must be a number"),
        ("--held-out 1.5", "cannot be split"),
        ("--resume", "nothing to resume"),
        ("--schedule soon", "schedule must be one of"),
        ("--trigger nowhere.safetensors", "nowhere.safetensors"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_leaves_nothing(repair, tmp_path, more, message):
    result = repair(more)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["cli.repair.write_audit_page", "audit.repair.correct_answers"])
def test_an_error_leaves_no_output(repair, tmp_path, monkeypatch, step):
    repair_calls = []

    def fails(*_, **__):
        repair_calls.append(step)
        raise OSError("no space")

    monkeypatch.setattr(f"d3fast.{step}", fails)
    assert repair().exit_code == 2
    assert repair_calls
    left = names(tmp_path) if (tmp_path / "audit").exists() else set()
    assert left <= {"resume.pt"}


def test_ctrl_c_leaves_the_state_alone_and_resuming_finishes(repair, tmp_path, monkeypatch):
    def interrupts(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("d3fast.audit.repair.card.measured", Second(interrupts))
        patch.setattr("signal.raise_signal", lambda _: None)
        patch.setattr("signal.signal", lambda *_: None)
        result = repair()
    assert "interrupted" in result.stderr
    assert names(tmp_path) == {"resume.pt"}
    assert "--resume continues" in result.stdout
    assert repair().exit_code == 2
    assert repair("--resume --fail-on none").exit_code == 0
    assert names(tmp_path) == FILES


class Second:
    """Lets the first call through."""

    def __init__(self, then):
        from d3fast.audit.report.card import measured

        self.calls = iter([measured, then])

    def __call__(self, *arguments):
        return next(self.calls)(*arguments)
