# SPDX-License-Identifier: Apache-2.0
"""The tables of the benchmark: summary, attacks x defences, relearning, ablations.

A missing number is a dash with a footnote that gives the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from d3fast.benchmark.labels import CLEAN_MODEL, D3, NONE, attack_label
from d3fast.benchmark.report.goals import REFERENCES, better_elsewhere
from d3fast.benchmark.report.numbers import (
    EFFECTS,
    AttackedRow,
    Grid,
    ablations,
    is_numeric,
    reactivation,
    relearning,
)
from d3fast.results.format import MISSING, count, fixed, mean, percent, shortest
from d3fast.results.schema.benchmark import CleanRow, GridRow, ReactivationRow
from d3fast.results.table import Cell, Line, Table, spread_cell

# Upper ends of the shades of lift, in points: the goal of D3, then coarser.
SHADES = (0.5, 2.0, 5.0, 15.0, 40.0, 70.0)
_DASH = Cell(MISSING)


def shade(effect: float | None) -> int | None:
    """Return the shade of a lift or an ASR excess, a fraction.

    Example:
        >>> shade(-0.01), shade(0.005), shade(0.03), shade(0.99), shade(None)
        (0, 0, 2, 6, None)
    """
    if effect is None:
        return None
    return sum(round(100 * effect, 6) > end for end in SHADES)


def _are_best(texts: Sequence[str], best_of: Callable[..., float]) -> list[bool]:
    """Return which numbers are the best of those shown; a single number is not marked."""
    values = [None if text == MISSING else float(text.replace("−", "-")) for text in texts]
    present = [value for value in values if value is not None]
    if len(present) < 2:
        return [False] * len(texts)
    best = best_of(present)
    return [value == best for value in values]


def _with_best_bold(
    lines: Sequence[Line], columns: Mapping[int, Callable[..., float]], competing: Sequence[str]
) -> tuple[Line, ...]:
    """Return the lines with the best number of some columns in bold.

    Args:
        lines: names and cells.
        columns: ``min`` or ``max`` by column.
        competing: names of the lines that compete.
    """
    made = dict(lines)
    for column, best_of in columns.items():
        found = _are_best([made[name][column].text for name in competing], best_of)
        for name, bold in zip(competing, found, strict=True):
            cells = list(made[name])
            cells[column] = replace(cells[column], bold=bold)
            made[name] = tuple(cells)
    return tuple(made.items())


def summary_table(grid: Grid, rows: Sequence[GridRow]) -> Table:
    """Return one line per defence: means over attacks and seeds with the range over seeds.

    Args:
        grid: plain attacks of one setting.
        rows: all rows of the setting; the clean models are read from them.
    """
    headings = (
        "defence",
        "ACC %",
        "ACC − suspect",
        "ACC − FT",
        "ASR %",
        "floor",
        "lift",
        f"worst {EFFECTS[grid.effect]}",
        "RA %",
        "RA ceiling",
        "DER %",
        "seconds",
    )
    names = [*grid.defenses, *([NONE] if grid.all_rows(NONE) else [])]
    lines = [(name, _summary_line(grid, name)) for name in names]
    complete = [name for name, cells in lines if name != NONE and not cells[0].note]
    best = {0: max, 1: max, 2: max, 3: min, 5: min, 6: min, 7: max, 9: max}
    shown = _with_best_bold(lines, best, complete) + _clean_model_line(grid, rows)
    return Table(headings, shown, references=(NONE, CLEAN_MODEL), highlighted=(D3,))


def _summary_line(grid: Grid, name: str) -> tuple[Cell, ...]:
    have, expected = len(grid.all_rows(name)), grid.expected()
    note = f"mean over {have} of {expected} models: not to be ranked with the others"
    seconds = None if name == NONE else grid.overall(name, "seconds")
    return (
        replace(spread_cell(grid.seed_means(name, "acc")), note=note if have < expected else ""),
        spread_cell([-loss for loss in grid.seed_means(name, "acc_loss")]),
        spread_cell(grid.acc_changes(name)),
        spread_cell(grid.seed_means(name, "asr")),
        Cell(percent(grid.overall(name, "floor"))),
        spread_cell(grid.seed_means(name, "lift")),
        _worst_cell(grid, name),
        spread_cell(grid.seed_means(name, "ra")),
        Cell(percent(grid.overall(name, "ra_ceiling"))),
        spread_cell(grid.seed_means(name, "der")),
        Cell(fixed(seconds, _second_digits(grid))),
    )


def _worst_cell(grid: Grid, name: str) -> Cell:
    worst = grid.worst(name, grid.effect)
    if worst is None:
        return _DASH
    value = percent(getattr(worst, grid.effect))
    return Cell(value, detail=attack_label(worst), note=_unchanged(grid, name))


def _unchanged(grid: Grid, name: str) -> str:
    """Return how many suspects a defence returned unchanged, and what the others have left."""
    rows, unchanged = grid.all_rows(name), grid.unchanged(name)
    if name == NONE or not unchanged:
        return ""
    text = f"{len(unchanged)} of {count(len(rows), 'suspect')} returned unchanged"
    others = [row for row in rows if row.epochs != 0]
    if not others:
        return text
    effect = EFFECTS[grid.effect]
    left = percent(mean(getattr(row, grid.effect) for row in others))
    return f"{text}; the others: ASR {percent(mean(row.asr for row in others))} %, {effect} {left}"


def _second_digits(grid: Grid) -> int:
    """Return the decimals of seconds: one if any defence takes less than ten."""
    seconds = [grid.overall(name, "seconds") for name in grid.defenses]
    return int(any(value is not None and value < 9.5 for value in seconds))


def _clean_model_line(grid: Grid, rows: Sequence[GridRow]) -> tuple[Line, ...]:
    accuracies = [row.acc for row in rows if isinstance(row, CleanRow) and row.acc]
    if not accuracies:
        return ()
    ceiling = Cell(percent(mean(grid.floor(attack, "ra_ceiling") for attack in grid.attacks)))
    floor = Cell(percent(mean(grid.floor(attack) for attack in grid.attacks)))
    rates = (floor, floor, _DASH, _DASH, ceiling, ceiling, _DASH, _DASH)
    cells = (spread_cell(accuracies), _DASH, _DASH, *rates)
    return ((CLEAN_MODEL, cells),)


def _absence(grid: Grid, attack: str, name: str) -> str:
    """Return why a cell of the grid has fewer rows than seeds, or ``""`` if it has all."""
    have = len(grid.rows(attack, name))
    if have == len(grid.seeds):
        return ""
    reasons = grid.refusals(attack, name) or grid.refusals(attack, NONE)
    part = f"{have} of {len(grid.seeds)} seeds"
    if reasons:
        reason = reasons[0].removeprefix("no suspect: ")
        return reason if have == 0 else f"{part}; {reason}"
    return "not run yet" if have == 0 else part


def grid_table(grid: Grid) -> Table:
    """Return ACC / ASR / lift of attacks x defences, means over seeds, shaded by the lift.

    Args:
        grid: of one setting.
    """
    lines = []
    for attack in grid.attacks:
        defended = [_grid_cell(grid, attack, name) for name in grid.defenses]
        rates = [percent(grid.mean(attack, name, "asr")) for name in grid.defenses]
        best_acc = _are_best([cell.text for cell in defended], max)
        best_asr = _are_best(rates, min)
        cells = (
            Cell(percent(grid.floor(attack))),
            _grid_cell(grid, attack, NONE),
            *(
                replace(cell, bold=acc, detail_bold=asr)
                for cell, acc, asr in zip(defended, best_acc, best_asr, strict=True)
            ),
        )
        lines.append((attack, cells))
    headings = ("ACC / ASR / lift %", "floor", NONE, *grid.defenses)
    return Table(headings, tuple(lines), pair=True, references=("floor", NONE), highlighted=(D3,))


def _grid_cell(grid: Grid, attack: str, name: str) -> Cell:
    note = _absence(grid, attack, name)
    acc, asr = grid.mean(attack, name, "acc"), grid.mean(attack, name, "asr")
    if acc is None and asr is None:
        return Cell(MISSING, note=note)
    rates = f"{percent(asr)} / {percent(grid.mean(attack, name, 'lift'))}"
    effect = grid.mean(attack, name, grid.effect)
    return Cell(percent(acc), detail=rates, note=note, shade=shade(effect))


def better_table(grids: Sequence[Grid]) -> Table:
    """Return where another defence does better than D3: its number, and below it D3's.

    Args:
        grids: of plain and of adaptive attacks.
    """
    lines = []
    for grid in grids:
        for attack, found in better_elsewhere(grid).items():
            cells = []
            for key in ("der", grid.effect, "acc"):
                cell = Cell("D3", muted=True)
                if key in found:
                    name, value, own = found[key]
                    cell = Cell(f"{name} {percent(value)}", detail=f"D3 {percent(own)}")
                cells.append(cell)
            lines.append((attack, tuple(cells)))
    effect = EFFECTS[grids[0].effect]
    return Table(("attack", "best DER %", f"lowest {effect}", "best ACC %"), tuple(lines))


def relearning_table(rows: Sequence[GridRow]) -> Table:
    """Return the area under the relearning curve by model and attack, smallest mean first."""
    found = relearning(rows)
    lines, means = [], {}
    for name in dict.fromkeys(name for by_name in found.values() for name in by_name):
        areas = [[row.area for row in by_name.get(name, ())] for by_name in found.values()]
        means[name] = mean(map(mean, areas)) or 0.0
        overall = Cell(fixed(means[name], 3)) if all(areas) else _DASH
        lines.append((name, (*(spread_cell(values, 3, 1) for values in areas), overall)))
    lines.sort(key=lambda line: means[line[0]])
    competing = [name for name, _ in lines if name not in REFERENCES]
    shown = _with_best_bold(lines, dict.fromkeys(range(len(found) + 1), min), competing)
    headings = ("area", *found, "mean")
    return Table(headings, shown, references=REFERENCES, highlighted=(D3,))


def reactivation_table(rows: Sequence[GridRow]) -> Table:
    """Return the ASR under perturbed triggers, lowest mean lift first: means over attacks."""
    headings = ("ASR %", "plain", "white box", "no trigger", "lift", "transfer", "existence %")
    lines, lifts = [], {}
    for name, own in reactivation(rows).items():

        def asr(condition: str, own: Sequence[ReactivationRow] = own) -> Cell:
            return spread_cell([getattr(row, condition).asr for row in own])

        lifts[name] = mean([row.lift for row in own]) or 0.0
        conditions = map(asr, ("before", "white_box", "untriggered"))
        lift, existence = (
            spread_cell([getattr(row, key) for row in own]) for key in ("lift", "existence")
        )
        lines.append((name, (*conditions, lift, asr("transfer"), existence)))
    lines.sort(key=lambda line: lifts[line[0]])
    competing = [name for name, _ in lines if name not in REFERENCES]
    shown = _with_best_bold(lines, dict.fromkeys((0, 1, 3, 4, 5), min), competing)
    return Table(headings, shown, references=REFERENCES, highlighted=(D3,))


def ablation_tables(rows: Sequence[GridRow]) -> dict[str, Table]:
    """Return one table per factor: a line per value and defence, means with range over seeds."""
    keys = {
        "ACC %": "acc",
        "ASR %": "asr",
        "floor": "floor",
        "lift": "lift",
        "RA %": "ra",
        "DER %": "der",
    }
    tables = {}
    for factor, by_defense in ablations(rows).items():
        most = max(len(found) for by_value in by_defense.values() for found in by_value.values())
        several = len(by_defense) > 1
        lines = []
        for name, by_value in by_defense.items():
            for value, found in by_value.items():
                cells = [spread_cell(_by_seed(found, key)) for key in keys.values()]
                if len(found) < most:
                    note = f"mean over {len(found)} of {most} models"
                    cells[0] = replace(cells[0], note=note)
                shown = shortest(value) if is_numeric([value]) else str(value)
                lines.append((f"{name}, {shown}" if several else shown, tuple(cells)))
        heading = f"defence, {factor}" if several else f"{next(iter(by_defense))}: {factor}"
        tables[factor] = Table((heading, *keys), tuple(lines))
    return tables


def _by_seed(rows: Sequence[AttackedRow], key: str) -> list[float | None]:
    seeds = sorted({row.seed for row in rows})
    return [mean(getattr(row, key) for row in rows if row.seed == seed) for seed in seeds]
