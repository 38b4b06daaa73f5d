"""One table in three formats: terminal, Markdown, HTML."""

import io
import re

import pytest
from jinja2 import DictLoader
from rich.console import Console

from d3fast.results import page
from d3fast.results.table import Cell, Column, Table, mean_table, text_table, to_markdown, to_rich

PLAIN = Table(
    ("name", "ACC %", "reason"),
    (
        ("ours", (Cell("97.0", bold=True, detail="96.0–98.0"), Cell("–", note="not run yet"))),
        ("none", (Cell("90.0"), Cell("–", note="not run yet"))),
        ("other", (Cell("D3", muted=True), Cell("–", note="failed"))),
    ),
    references=("none",),
    highlighted=("ours",),
)
PAIRS = Table(
    ("ACC / ASR", "d3"),
    (("badnets", (Cell("91.0", bold=True, detail="0.5", detail_bold=True, shade=2),)),),
    pair=True,
    highlighted=("d3",),
)


def printed(table, **options):
    """Return the lines of a table in the terminal, without the frame."""
    out = io.StringIO()
    Console(file=out, width=80).print(to_rich(table, **options))
    unframed = re.sub("[\u2500-\u257f]", " ", out.getvalue())
    return [" ".join(line.split()) for line in unframed.splitlines() if line.strip()]


def html(macro, **content):
    """Return what a macro of tables.html makes."""
    source = f'{{% from "tables.html" import heat_map, table %}}{{{{ {macro} }}}}'
    environment = page._environment("d3fast.results").overlay()
    environment.loader.loaders.append(DictLoader({"test": source}))
    try:
        return environment.get_template("test").render(**content)
    finally:
        environment.loader.loaders.pop()


def test_notes_are_numbered_in_the_order_of_their_first_mention():
    assert PLAIN.notes == ("not run yet", "failed")
    assert [PLAIN.note_number(cells[1]) for _, cells in PLAIN.lines] == [1, 1, 2]
    assert PLAIN.note_number(Cell("1")) == 0


def test_markdown_has_details_in_brackets_and_footnotes_below():
    assert to_markdown(PLAIN).splitlines() == [
        "| name | ACC % | reason |",
        "|---|--:|--:|",
        "| ours | **97.0** (96.0–98.0) | – <sup>1</sup> |",
        "| none | 90.0 | – <sup>1</sup> |",
        "| other | D3 | – <sup>2</sup> |",
        "",
        "<sup>1</sup> not run yet<br>",
        "<sup>2</sup> failed",
    ]


def test_markdown_separates_the_numbers_of_a_pair():
    assert "| badnets | **91.0** / **0.5** |" in to_markdown(PAIRS)


def test_text_cannot_break_a_markdown_table():
    table = Table(("a|b", "<i>"), (("x|y<b>", (Cell("1 < 2", note="why | not"),)),))
    assert to_markdown(table).splitlines() == [
        "| a\\|b | &lt;i> |",
        "|---|--:|",
        "| x\\|y&lt;b> | 1 < 2 <sup>1</sup> |",
        "",
        "<sup>1</sup> why \\| not",
    ]


def test_the_terminal_has_details_on_a_second_line_and_caption_and_footnotes_below():
    assert printed(PLAIN, title="Title", caption="Caption") == [
        "Title",
        "name ACC % reason",
        "ours 97.0 – [1]",
        "96.0–98.0",
        "none 90.0 – [1]",
        "other D3 – [2]",
        "Caption",
        "[1] not run yet",
        "[2] failed",
    ]


def test_text_is_no_markup_in_the_terminal():
    table = Table(("a", "[b]"), (("[red]x[/red]", (Cell("1", note="[bold]n"),)),))
    text = "\n".join(printed(table, title="[t]"))
    for part in ("[red]x[/red]", "[b]", "[1] [bold]n", "[t]"):
        assert part in text


def test_html_marks_lines_best_numbers_and_footnotes():
    text = html("table(t)", t=PLAIN)
    assert '<tr class="ours"><th scope="row">ours</th>' in text
    assert '<tr class="reference"><th scope="row">none</th>' in text
    assert "<td><b>97.0</b><small>96.0–98.0</small></td>" in text
    assert '<td class="reference">D3</td>' in text
    assert "<td>–<sup>2</sup></td>" in text
    assert "<li><sup>2</sup> failed</li>" in text


def test_a_heat_map_shows_the_second_number_large_on_its_shade():
    text = html("heat_map(t, 'attack', 'scale', ['low', 'high'])", t=PAIRS)
    assert '<th scope="col" class="ours">d3</th>' in text
    assert '<td class="shade-2"><b>0.5</b><small><b>91.0</b></small></td>' in text
    assert '<span class="shade-1">high</span>' in text


def test_text_is_escaped_in_html():
    assert "<td>&lt;b&gt;</td>" in html("table(t)", t=text_table(("", "x"), [("a", "<b>")]))


def test_a_table_of_means_has_a_line_per_group_and_a_column_per_key():
    columns = (Column("acc", "ACC %", scale=100), Column("seconds", "seconds", digits=2))
    rows = [{"acc": 0.9, "seconds": 1.0}, {"acc": 0.8, "seconds": 1.0}]
    table = mean_table(columns, {"before": rows, "after": rows[:1], "floor": [{"acc": None}, {}]})
    assert table.headings == ("", "ACC %", "seconds")
    assert table.lines == (
        ("before", (Cell("85.0", detail="80.0–90.0"), Cell("1.00"))),
        ("after", (Cell("90.0"), Cell("1.00"))),
        ("floor", (Cell("–"), Cell("–"))),
    )


@pytest.mark.parametrize("render", [to_markdown, printed, lambda t: html("table(t)", t=t)])
def test_an_empty_table_has_its_headings(render):
    assert "ACC" in str(render(Table(("", "ACC"), ())))
