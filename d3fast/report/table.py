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
