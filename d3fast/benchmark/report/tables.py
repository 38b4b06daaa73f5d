# SPDX-License-Identifier: Apache-2.0
"""The benchmark's tables as texts, made once and shown three times: terminal, Markdown, HTML.

A ``Shown`` is a table without any layout: what stands in each cell, which number is the best of its
line or column, which footnote belongs to it. A number that is missing is a dash with a footnote
that says why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from d3fast.benchmark.report.numbers import (
    NONE,
    Grid,
    Row,
    ablations,
    attack_name,
    is_numeric,
    mean,
    relearning,
)
from d3fast.benchmark.report.verdict import REFERENCES, better_elsewhere, number
from d3fast.results.table import Item, Shown, spread

# Upper ends of the shades of ASR excess, in points: what D3 is asked for, then coarser.
SHADES = (0.5, 2.0, 5.0, 15.0, 40.0, 70.0)


@dataclass
class _Notes:
    """Footnotes, each text once."""

    texts: list[str] = field(default_factory=list)

    def number(self, text: str | None) -> int:
        if text is None:
            return 0
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def shade(excess: float | None) -> int | None:
    """The shade of an ASR excess, a fraction.

    Example:
        >>> shade(-0.01), shade(0.005), shade(0.03), shade(0.99), shade(None)
        (0, 0, 2, 6, None)
    """
    if excess is None:
        return None
    return sum(round(100 * excess, 6) > end for end in SHADES)


def mark_best(lines: Sequence[list[Item]], columns: dict[int, Callable[..., float]]) -> None:
    """Mark the best of some columns in place, ties as shown included.

    Args:
        lines: the lines that compete.
        columns: ``min`` or ``max`` by column.
    """
    for column, best_of in columns.items():
        values = [_value(line[column].text) for line in lines]
        present = [value for value in values if value is not None]
        if len(present) < 2:
            continue
        best = best_of(present)
        for line, value in zip(lines, values, strict=True):
            if value == best:
                line[column] = replace(line[column], best=True)


def _value(text: str) -> float | None:
    return None if text == "–" else float(text.replace("−", "-"))


def _spread(values: Sequence[float | None], digits: int = 1, scale: float = 100) -> Item:
    text, _, beside = spread(values, digits, scale).partition("\n")
    return Item(text, beside=beside)


def summary_table(grid: Grid, rows: Sequence[Row]) -> Shown:
    """One line per defence, means over attacks and seeds with the range over seeds.

    Args:
        grid: plain attacks of one setting.
        rows: the same setting's; the clean twins are read from them.
    """
    headings = (
        "defence",
        "ACC %",
        "ACC − FT",
        "ASR excess",
        "worst excess",
        "RA %",
        "RA ceiling",
        "DER %",
        "seconds",
    )
    notes = _Notes()
    lines = []
    for name in (*grid.defenses, NONE):
        worst = grid.worst(name, "asr_excess")
        item = Item("–")
        if worst is not None:
            item = Item(number(worst["asr_excess"]), beside=attack_name(worst))
        cells = [
            _spread(grid.seed_means(name, "acc")),
            _spread(grid.seed_means(name, "acc_change")),
            _spread(grid.seed_means(name, "asr_excess")),
            item,
            _spread(grid.seed_means(name, "ra")),
            replace(_spread(grid.seed_means(name, "ra_ceiling")), beside=""),
            _spread(grid.seed_means(name, "der")),
            Item("–")
            if name == NONE
            else replace(_spread(grid.seed_means(name, "seconds"), _digits(grid), 1), beside=""),
        ]
        have, expected = len(grid.all_rows(name)), grid.expected()
        if have < expected:
            text = f"mean over {have} of {expected} models: not to be ranked with the others"
            cells[0] = replace(cells[0], note=notes.number(text))
        lines.append((name, cells))
    complete = [c for name, c in lines if name != NONE and not c[0].note]
    mark_best(complete, {0: max, 1: max, 2: min, 3: min, 4: max, 6: max})
    shown = [(name, tuple(cells)) for name, cells in lines if grid.all_rows(name) or name != NONE]
    twins = [row for row in rows if row["kind"] == "clean" and row.get("acc") is not None]
    if twins:
        ceiling = mean(grid.floor(attack, "ra_ceiling") for attack in grid.attacks)
        none = Item("–")
        acc = _spread([row["acc"] for row in twins])
        shown.append(
            (
                "never poisoned",
                (
                    acc,
                    none,
                    Item("0.0"),
                    none,
                    Item(number(ceiling)),
                    Item(number(ceiling)),
                    none,
                    none,
                ),
            )
        )
    return Shown(headings, tuple(shown), tuple(notes.texts), references=(NONE, "never poisoned"))


def _digits(grid: Grid) -> int:
    """Decimals of seconds: one where something takes less than ten."""
    seconds = [grid.overall(name, "seconds") for name in grid.defenses]
    return int(any(value is not None and value < 9.5 for value in seconds))


def _absence(grid: Grid, attack: str, name: str) -> str | None:
    """Why a cell has fewer rows than seeds, if it has."""
    have = len(grid.rows(attack, name))
    if have == len(grid.seeds):
        return None
    reasons = [str(r["refused"]) for r in grid.cells.get((attack, name), ()) if r.get("refused")]
    if not reasons:
        suspects = grid.cells.get((attack, NONE), ())
        reasons = [str(r["refused"]) for r in suspects if r.get("refused")]
    part = f"{have} of {len(grid.seeds)} seeds"
    if reasons:
        reason = reasons[0].removeprefix("no suspect: ")
        return reason if have == 0 else f"{part}; {reason}"
    return "not run yet" if have == 0 else part


def grid_table(grid: Grid) -> Shown:
    """Attacks x defences: ACC / ASR, means over seeds, shaded by ASR excess.

    Args:
        grid: of one setting.
    """
    notes = _Notes()
    lines = []
    for attack in grid.attacks:
        cells = [_grid_item(grid, attack, name, notes) for name in (NONE, *grid.defenses)]
        competing = [[replace(cell, note=0)] for cell in cells[1:]]
        swapped = [[Item(cell.beside or "–")] for cell in cells[1:]]
        mark_best(competing, {0: max})
        mark_best(swapped, {0: min})
        cells[1:] = [
            replace(cell, best=first.best, beside_best=second.best)
            for cell, [first], [second] in zip(cells[1:], competing, swapped, strict=True)
        ]
        lines.append((attack, (Item(number(grid.floor(attack))), *cells)))
    headings = ("ACC / ASR %", "floor", NONE, *grid.defenses)
    return Shown(headings, tuple(lines), tuple(notes.texts), pair=True, references=("floor", NONE))


def _grid_item(grid: Grid, attack: str, name: str, notes: _Notes) -> Item:
    note = notes.number(_absence(grid, attack, name))
    acc, asr = grid.mean(attack, name, "acc"), grid.mean(attack, name, "asr")
    if acc is None and asr is None:
        return Item("–", note=note)
    excess = grid.mean(attack, name, "asr_excess")
    return Item(number(acc), beside=number(asr), note=note, shade=shade(excess))


def better_table(grids: Sequence[Grid]) -> Shown:
    """Where another defence does better than D3: the best one, its number, and D3's.

    Args:
        grids: of plain and of adaptive attacks.
    """
    lines = []
    for made in grids:
        for attack, found in better_elsewhere(made).items():
            cells = []
            for key in ("der", "asr_excess", "acc"):
                item = Item("D3")
                if key in found:
                    name, value, own = found[key]
                    item = Item(f"{name} {number(value)}", beside=f"D3 {number(own)}")
                cells.append(item)
            lines.append((attack, tuple(cells)))
    return Shown(("attack", "best DER %", "lowest ASR excess", "best ACC %"), tuple(lines))


def relearning_table(rows: Sequence[Row]) -> Shown:
    """Area under the relearning curve by model and attack: small where the backdoor stays away."""
    found = relearning(rows)
    names = dict.fromkeys(name for by_name in found.values() for name in by_name)
    overall = {
        name: mean(
            mean(r["area"] for r in by_name[name]) for by_name in found.values() if name in by_name
        )
        for name in names
    }
    lines = []
    for name in sorted(names, key=lambda name: overall[name] or 0.0):
        areas = [[r["area"] for r in by_name.get(name, ())] for by_name in found.values()]
        cells = [_spread(values, 3, 1) for values in areas]
        text = "–" if any(not values for values in areas) else f"{overall[name]:.3f}"
        lines.append((name, [*cells, Item(text)]))
    competing = [cells for name, cells in lines if name not in REFERENCES]
    mark_best(competing, dict.fromkeys(range(len(found) + 1), min))
    headings = ("area", *found, "mean")
    shown = tuple((name, tuple(cells)) for name, cells in lines)
    return Shown(headings, shown, references=REFERENCES)


def ablation_tables(rows: Sequence[Row]) -> dict[str, Shown]:
    """One table per factor: a line per value and defence, means with their range over seeds."""
    tables = {}
    for factor, by_defense in ablations(rows).items():
        notes = _Notes()
        most = max(len(found) for by_value in by_defense.values() for found in by_value.values())
        lines = []
        for name, by_value in by_defense.items():
            for value, found in by_value.items():
                keys = ("acc", "asr_excess", "ra", "der")
                cells = [_spread(_by_seed(found, key)) for key in keys]
                if len(found) < most:
                    text = f"mean over {len(found)} of {most} models"
                    cells[0] = replace(cells[0], note=notes.number(text))
                shown = f"{value:g}" if is_numeric([value]) else str(value)
                line = f"{name}, {shown}" if len(by_defense) > 1 else shown
                lines.append((line, tuple(cells)))
        only = next(iter(by_defense))
        heading = f"defence, {factor}" if len(by_defense) > 1 else f"{only}: {factor}"
        headings = (heading, "ACC %", "ASR excess", "RA %", "DER %")
        tables[factor] = Shown(headings, tuple(lines), tuple(notes.texts))
    return tables


def _by_seed(rows: Sequence[Row], key: str) -> list[float | None]:
    seeds = sorted({row["seed"] for row in rows})
    return [mean(row.get(key) for row in rows if row["seed"] == seed) for seed in seeds]
