# SPDX-License-Identifier: Apache-2.0
"""Tables for the terminal: means over seeds, with the smallest and largest value below."""

from collections.abc import Mapping, Sequence
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
    table = Table(title=title, caption=caption or None, title_justify="left",
                  caption_justify="left", pad_edge=False, box=SIMPLE_HEAD)  # fmt: skip
    table.add_column("")
    for column in columns:
        table.add_column(column.heading, justify="right")
    for name, rows in groups.items():
        cells = (
            spread([row.get(column.key) for row in rows], column.digits, column.scale)
            for column in columns
        )
        table.add_row(name, *(_dimmed(cell) for cell in cells))
    return table


def _dimmed(cell: str) -> Text:
    mean, _, between = cell.partition("\n")
    return Text.assemble(mean, ("\n" + between, "dim")) if between else Text(mean)
