"""What a command prints, and where."""

import pytest

from d3fast.cli.output import Output


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"rows": ["é"]}\n', encoding="utf-8")
    return path


def said(output, results, capsys):
    output.say("text")
    output.notes(["note"])
    output.document(results)
    return tuple(capsys.readouterr())


def test_text_goes_to_standard_output_and_notes_to_standard_error(results, capsys):
    assert said(Output(), results, capsys) == ("text\n", "note: note\n")


def test_json_has_standard_output_to_itself(results, capsys):
    expected = results.read_text(encoding="utf-8"), "text\nnote: note\n"
    assert said(Output(as_json=True), results, capsys) == expected


def test_quiet_prints_nothing_but_json(results, capsys):
    assert said(Output(quiet=True), results, capsys) == ("", "")
    quiet = said(Output(quiet=True, as_json=True), results, capsys)
    assert quiet == (results.read_text(encoding="utf-8"), "")


def test_progress_bars_are_off_where_they_or_all_text_are():
    assert Output().bars
    assert not Output(progress=False).bars
    assert not Output(quiet=True).bars


def test_a_line_of_an_untrusted_file_controls_no_terminal(capsys):
    Output().say("\x1b[2J[red]x")
    assert capsys.readouterr().out == "\\x1b[2J[red]x\n"
