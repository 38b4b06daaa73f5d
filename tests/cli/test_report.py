"""``d3fast report``: a folder in, a page out."""

import pytest

from tests.audit.report.documents import edit, write


def test_it_writes_the_page_into_the_folder_and_says_the_headline(call, tmp_path):
    write(tmp_path, "inspect")
    result = call("report", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("Possible backdoor toward class “3”\n")
    assert result.output.endswith(f"Written to {tmp_path / 'report.html'}.\n")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_goes_where_it_is_told(call, tmp_path):
    write(tmp_path, "inspect")
    assert call("report", tmp_path, "--out", tmp_path / "other.html").exit_code == 0
    assert (tmp_path / "other.html").is_file()
    assert not (tmp_path / "report.html").exists()


def test_the_default_folder_is_runs_audit(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "audit").mkdir(parents=True)
    write(tmp_path / "runs" / "audit", "pilot")
    assert call("report").exit_code == 0
    assert (tmp_path / "runs" / "audit" / "report.html").is_file()


def test_only_the_old_default_folder_is_one_line(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "case").mkdir(parents=True)
    result = call("report")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: runs/audit is missing; runs/case has results of an earlier release\n"
    )


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
