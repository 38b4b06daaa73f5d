"""The progress bar: silent without a terminal, honest about what was done before."""

import sys

import pytest
from rich.console import Console

from d3fast.runtime.progress import progress_bar


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(Console, "is_terminal", True)
    monkeypatch.setenv("COLUMNS", "100")


def test_nothing_is_printed_without_a_terminal(capsys):
    with progress_bar("work", 2) as advance:
        advance("first")
    assert capsys.readouterr() == ("", "")


def test_nothing_is_printed_when_switched_off(terminal, capsys):
    with progress_bar("work", 2, enabled=False) as advance:
        advance("first")
    assert capsys.readouterr() == ("", "")


def test_it_counts_on_from_what_was_done_and_shows_what_stands_above(terminal, capsys):
    with progress_bar("work", 5, done=3, above=lambda: "means so far") as advance:
        advance("one more")
    out, err = capsys.readouterr()
    assert out == ""
    for text in ("means so far", "one more", "4/5"):
        assert text in err


def test_nothing_is_printed_without_rich(terminal, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rich", None)
    with progress_bar("work", 2) as advance:
        advance("first")
        advance()
    assert capsys.readouterr() == ("", "")
