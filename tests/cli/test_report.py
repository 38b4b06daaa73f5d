"""``d3fast report``: a folder in, a page out."""

import json

import pytest

from tests.audit.report.documents import edit, write


def test_it_writes_the_page_into_the_folder_and_says_the_headline(call, tmp_path):
    write(tmp_path, "inspect")
    result = call("report", tmp_path)
    assert result.exit_code == 1, result.output
    assert result.output.startswith("Possible backdoor toward class “3”\n")
    assert result.output.endswith(f"Written to {tmp_path / 'report.html'}.\n")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_goes_where_it_is_told(call, tmp_path):
    write(tmp_path, "inspect")
    assert call("report", tmp_path, "--out", tmp_path / "other.html").exit_code == 1
    assert (tmp_path / "other.html").is_file()
    assert not (tmp_path / "report.html").exists()


def test_the_default_folder_is_the_newest_audit_and_is_named(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, document in (("net-00000001", "inspect"), ("net-00000002", "pilot")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        write(tmp_path / "runs" / name, document)
    result = call("report")
    assert result.exit_code == 0
    assert result.stderr == "note: runs/net-00000002 is the newest audit in runs\n"
    assert (tmp_path / "runs" / "net-00000002" / "report.html").is_file()


def test_without_any_audit_there_is_one_line(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("report")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: there is no audit in runs: run d3fast check, or name the folder\n"
    )


@pytest.mark.parametrize(
    ("documents", "options", "code"),
    [
        (["inspect"], "", 1),
        (["inspect"], "--fail-on none", 0),
        (["pilot"], "", 0),
        (["inspect", "card"], "", 0),
    ],
)
def test_the_exit_code_is_about_the_model_that_is_delivered(
    call, tmp_path, documents, options, code
):
    for name in documents:
        write(tmp_path, name)
    assert call(f"report {options}", tmp_path).exit_code == code


def test_a_missed_limit_is_code_3(call, tmp_path):
    def missed(document):
        (row,) = (row for row in document["rows"] if row["kind"] == "repair")
        row["kept"] = False

    edit(write(tmp_path, "card"), missed)
    assert call("report", tmp_path).exit_code == 3


def test_as_json_the_verdict_is_a_results_document(call, tmp_path):
    write(tmp_path, "card")
    result = call("report --json", tmp_path)
    document = json.loads(result.stdout)
    headline, *findings = document["rows"]
    assert headline["text"] in result.stderr
    assert [row["question"] for row in findings] == [
        "Backdoor?",
        "Repaired?",
        "Accuracy?",
        "What remains?",
    ]


def test_what_does_not_belong_together_is_said_on_the_terminal_too(call, tmp_path):
    write(tmp_path, "card")
    write(tmp_path, "pilot", sha256=64 * "c")
    assert "pilot.json is about another model" in call("report", tmp_path).output


@pytest.mark.parametrize("folder", ["", "nowhere"])
def test_nothing_to_report_on_is_one_line_and_exit_code_2(call, tmp_path, folder):
    result = call("report", tmp_path / folder)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "d3fast inspect" in result.stderr


def test_a_malformed_document_is_one_line_and_exit_code_2(call, tmp_path):
    edit(write(tmp_path, "card"), lambda document: document["rows"][0].update(correct=-1))
    result = call("report", tmp_path)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: card.json: model row: correct must be")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_is_exit_code_2(call, tmp_path):
    write(tmp_path, "inspect")
    assert call("report", tmp_path, "--out", tmp_path / "no" / "page.html").exit_code == 2
