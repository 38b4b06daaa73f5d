# SPDX-License-Identifier: Apache-2.0
"""One table, three renderers: terminal, Markdown and HTML.

A ``Table`` holds text and what it means (the best number, a footnote, a shade) and no layout.
``to_rich`` and ``to_markdown`` render it; the macros of ``templates/tables.html`` are the HTML.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich.table
from rich.box import SIMPLE_HEAD
from rich.text import Text

from d3fast.results.format import mean_and_range

Row = Mapping[str, Any]  # one measurement: values by field


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: the number.
        bold: emphasise the text: it is the best of its line or column.
        detail: a second number, a range or a name that belongs to the text.
        detail_bold: emphasise the detail.
        muted: the cell only repeats what the table compares with.
        note: text of a footnote, or ``""``.
        shade: level of the background, from 0, or ``None`` for no background.
    """

    text: str
    bold: bool = False
    detail: str = ""
    detail_bold: bool = False
    muted: bool = False
    note: str = ""
    shade: int | None = None


Line = tuple[str, tuple[Cell, ...]]


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        headings: of all columns; the first heads the names of the lines.
        lines: name and cells of each line.
        pair: text and detail of a cell are two numbers of equal rank: Markdown writes
            ``text / detail`` instead of ``text (detail)``.
        references: names of lines and columns that the others are compared with.
        highlighted: names of lines and columns that the table is about.
    """

    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    pair: bool = False
    references: tuple[str, ...] = ()
    highlighted: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Footnotes in the order of their first mention; the first is number 1."""
        return tuple(
            dict.fromkeys(cell.note for _, cells in self.lines for cell in cells if cell.note)
        )

    def note_number(self, cell: Cell) -> int:
        """Return the number of a cell's footnote, 0 for none."""
        return self.notes.index(cell.note) + 1 if cell.note else 0


@dataclass(frozen=True)
class Column:
    """One column of numbers in a table of means.

    Attributes:
        key: name of the field in the rows.
        heading: what stands above the column.
        digits: decimals shown.
        scale: factor of the values, 100 for percent.
    """

    key: str
    heading: str
    digits: int = 1
    scale: float = 1.0


def spread_cell(values: Sequence[float | None], digits: int = 1, scale: float = 100) -> Cell:
    """Return a cell with the mean of some values and, if it shows, their range.

    Example:
        >>> spread_cell([0.97, 0.99])
        Cell(text='98.0', bold=False, detail='97.0–99.0', detail_bold=False, muted=False, note='', shade=None)
    """  # noqa: E501
    text, detail = mean_and_range(values, digits, scale)
    return Cell(text, detail=detail)


def mean_table(columns: Sequence[Column], groups: Mapping[str, Sequence[Row]]) -> Table:
    """Return a table with one line per group of rows: each column's mean and range.

    Args:
        columns: what to show.
        groups: rows by the name of their line.
    """

    def line(rows: Sequence[Row]) -> tuple[Cell, ...]:
        return tuple(
            spread_cell([row.get(column.key) for row in rows], column.digits, column.scale)
            for column in columns
        )

    headings = ("", *(column.heading for column in columns))
    return Table(headings, tuple((name, line(rows)) for name, rows in groups.items()))


def text_table(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    """Return a table of plain text; the first text of a line is its name."""
    return Table(tuple(headings), tuple((name, tuple(map(Cell, texts))) for name, *texts in lines))


def to_markdown(table: Table) -> str:
    """Return a table and its footnotes in Markdown, emphasised numbers in bold.

    Example:
        >>> table = mean_table([Column("acc", "ACC %", scale=100)], {"D3": [{"acc": 0.97}]})
        >>> print(to_markdown(table))
        |  | ACC % |
        |---|--:|
        | D3 | 97.0 |
    """

    def emphasised(text: str, bold: bool) -> str:
        return f"**{text}**" if bold and text else _escaped(text)

    def cell_text(cell: Cell) -> str:
        text, detail = emphasised(cell.text, cell.bold), emphasised(cell.detail, cell.detail_bold)
        if detail:
            text += f" / {detail}" if table.pair else f" ({detail})"
        return text + (f" <sup>{table.note_number(cell)}</sup>" if cell.note else "")

    lines = [[_escaped(name), *map(cell_text, cells)] for name, cells in table.lines]
    rows = [f"| {' | '.join(texts)} |" for texts in ([*map(_escaped, table.headings)], *lines)]
    rule = "|".join(["---", *["--:"] * (len(table.headings) - 1)])
    notes = [f"<sup>{i}</sup> {_escaped(text)}" for i, text in enumerate(table.notes, start=1)]
    return "\n".join(
        [rows[0], f"|{rule}|", *rows[1:], *(["", "<br>\n".join(notes)] if notes else [])]
    )


def _escaped(text: str) -> str:
    return re.sub("<(?=[a-zA-Z/!?])", "&lt;", text).replace("|", "\\|").replace("\n", " ")


def to_rich(table: Table, title: str = "", caption: str = "") -> rich.table.Table:
    """Return a table for the terminal, its caption and footnotes below it."""
    below = [caption] * bool(caption)
    below += [f"[{i}] {text}" for i, text in enumerate(table.notes, start=1)]
    made = rich.table.Table(
        title=Text(title, "bold") if title else None,
        caption=Text("\n".join(below), "dim italic") if below else None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=0,
    )
    for at, heading in enumerate(table.headings):
        made.add_column(Text(heading), justify="right" if at else "left", overflow="fold")
    for name, cells in table.lines:
        style = "dim" if name in table.references else ""
        made.add_row(Text(name, style), *(_rich_cell(table, cell) for cell in cells))
    return made


def _rich_cell(table: Table, cell: Cell) -> Text:
    text = Text(cell.text, "bold" if cell.bold else "dim" if cell.muted else "")
    if cell.note:
        text.append(f" [{table.note_number(cell)}]", "dim")
    if cell.detail:
        text.append(f"\n{cell.detail}", "bold" if cell.detail_bold else "dim")
    return text
