# SPDX-License-Identifier: Apache-2.0
"""Tables for terminal and Markdown: means over seeds, with the smallest and largest value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Column:
    """One column of numbers.

    Attributes:
        key: its name in the rows.
        heading: what stands above it.
        digits: decimals shown.
        scale: what values are multiplied with, 100 for percent.
    """

    key: str
    heading: str
    digits: int = 1
    scale: float = 1.0


def spread(values: Sequence[float | None], digits: int = 1, scale: float = 1.0) -> str:
    r"""Mean, and on a second line the range if the values differ as shown.

    Args:
        values: one per seed; ``None`` where there is no such number.
        digits: decimals shown.
        scale: what values are multiplied with.

    Example:
        >>> spread([0.97, 0.98, 0.99], scale=100)
        '98.0\n97.0–99.0'
        >>> spread([1.0, 1.0]), spread([None])
        ('1.0', '–')
    """
    present = [value * scale for value in values if value is not None]
    if not present:
        return "–"

    def shown(value: float) -> str:
        return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus zero

    mean, low, high = sum(present) / len(present), min(present), max(present)
    between = " to " if low < 0 else "–"
    text = shown(mean)
    return text if shown(low) == shown(high) else f"{text}\n{shown(low)}{between}{shown(high)}"


def summary_table(
    title: str,
    columns: Sequence[Column],
    groups: Mapping[str, Sequence[Mapping[str, float | None]]],
    caption: str = "",
) -> Table:
    """One line per group of rows: each column's mean and range over the rows.

    Args:
        title: above the table.
        columns: what to show.
        groups: rows by the name of their line.
        caption: below the table.
    """
    table = Table(
        title=title,
        caption=caption or None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", min_width=11)
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
    for name, rows in groups.items():
        table.add_row(name, *(_dimmed(cell) for cell in _cells(columns, rows)))
    return table


def markdown_table(
    columns: Sequence[Column], groups: Mapping[str, Sequence[Mapping[str, float | None]]]
) -> str:
    """The same in Markdown, each range in brackets behind its mean.

    Args:
        columns: what to show.
        groups: rows by the name of their line.

    Example:
        >>> print(markdown_table([Column("acc", "ACC %", scale=100)], {"D3": [{"acc": 0.97}]}))
        |  | ACC % |
        |---|--:|
        | D3 | 97.0 |
    """
    lines = []
    for name, rows in groups.items():
        cells = (cell.replace("\n", " (") + ")" * ("\n" in cell) for cell in _cells(columns, rows))
        lines.append([name, *cells])
    return markdown(["", *(column.heading for column in columns)], lines)


def markdown(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table, its first column to the left and the others to the right.

    Example:
        >>> print(markdown(["a", "b"], [["x", "1"]]))
        | a | b |
        |---|--:|
        | x | 1 |
    """
    rule = ["---", *["--:"] * (len(headings) - 1)]
    rows = [f"| {' | '.join(cells)} |" for cells in (headings, *lines)]
    return "\n".join([rows[0], f"|{'|'.join(rule)}|", *rows[1:]])


def _cells(columns: Sequence[Column], rows: Sequence[Mapping[str, float | None]]) -> list[str]:
    return [
        spread([row.get(column.key) for row in rows], column.digits, column.scale)
        for column in columns
    ]


def _dimmed(cell: str) -> Text:
    mean, _, between = cell.partition("\n")
    return Text.assemble(mean, ("\n" + between, "dim")) if between else Text(mean)


@dataclass(frozen=True)
class Item:
    """One cell.

    Attributes:
        text: its number.
        best: whether that is the best of its column or line.
        beside: a second number or a range.
        beside_best: the same for it.
        note: number of a footnote, 0 for none.
        shade: 0 (at the floor) to ``len(SHADES)``, or ``None``.
    """

    text: str
    best: bool = False
    beside: str = ""
    beside_best: bool = False
    note: int = 0
    shade: int | None = None


@dataclass(frozen=True)
class Shown:
    """A table of texts.

    Attributes:
        headings: of all columns, the first above the names of the lines.
        lines: name and cells of each.
        notes: footnotes, the first is number 1.
        pair: how ``beside`` stands in Markdown: ``text / beside``, or ``text (beside)``.
        references: lines and columns of these names are there to compare with.
    """

    headings: tuple[str, ...]
    lines: tuple[tuple[str, tuple[Item, ...]], ...]
    notes: tuple[str, ...] = ()
    pair: bool = False
    references: tuple[str, ...] = ()


def to_markdown(shown: Shown) -> str:
    """The table and its footnotes in Markdown, best numbers in bold."""

    def cell(item: Item) -> str:
        text = f"**{item.text}**" if item.best else item.text
        beside = f"**{item.beside}**" if item.beside_best else _escaped(item.beside)
        if beside:
            text += f" / {beside}" if shown.pair else f" ({beside})"
        return text + (f" <sup>{item.note}</sup>" if item.note else "")

    lines = [[_escaped(name), *map(cell, items)] for name, items in shown.lines]
    table = markdown([_escaped(heading) for heading in shown.headings], lines)
    notes = [f"<sup>{i}</sup> {_escaped(text)}" for i, text in enumerate(shown.notes, start=1)]
    return "\n".join([table, *(["", "<br>\n".join(notes)] if notes else [])])


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")


def to_rich(shown: Shown, title: str) -> Table:
    """The table for the terminal, footnotes below it."""
    caption = "\n".join(f"[{i}] {text}" for i, text in enumerate(shown.notes, start=1))
    table = Table(
        title=Text(title, "bold"),
        caption=Text(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in shown.headings:
        table.add_column(Text(heading), justify="left" if not table.columns else "right")
    for name, items in shown.lines:
        style = "dim" if name in shown.references else ""
        table.add_row(Text(name, style), *map(_rich_cell, items))
    return table


def _rich_cell(item: Item) -> Text:
    text = Text(item.text, "bold" if item.best else "")
    if item.note:
        text.append(f" [{item.note}]", "dim")
    if item.beside:
        text.append(f"\n{item.beside}", "dim")
    return text
