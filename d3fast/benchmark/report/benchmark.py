# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast benchmark``: tables, goals, one page, CSV and JSON, made from rows alone."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console

from d3fast.benchmark.labels import D3
from d3fast.benchmark.report.goals import Goal, judge_goals
from d3fast.benchmark.report.numbers import EFFECTS, Grid, both_grids, grid, sections
from d3fast.benchmark.report.plots import (
    ablation_figures,
    der_figure,
    heat_map_figure,
    relearning_figures,
    scatter_figure,
)
from d3fast.benchmark.report.tables import (
    SHADES,
    ablation_tables,
    better_table,
    grid_table,
    reactivation_table,
    relearning_table,
    summary_table,
)
from d3fast.io.files import written_together
from d3fast.results.format import count, shortest
from d3fast.results.page import render, write_page
from d3fast.results.plot import inline_svg, save_png
from d3fast.results.schema.benchmark import DefenseRow, GridRow, SuspectRow
from d3fast.results.store import Results
from d3fast.results.table import Table, to_markdown, to_rich

_TEMPLATE = ("benchmark.html", "d3fast.benchmark.report")
MISSING = "missing"  # in the settings of table.json: number of jobs that were not run yet


def _by_section(rows: Sequence[GridRow], make: Callable[[Sequence[GridRow]], Table]) -> str:
    """Return one Markdown table per setting, with a heading if there are several."""
    parts = []
    for name, own in sections(rows).items():
        table = make(own)
        if table.lines:
            parts.append((f"**{name}**\n\n" if name else "") + to_markdown(table))
    return "\n\n".join(parts)


def summary_markdown(rows: Sequence[GridRow]) -> str:
    """Return one line per defence, best mean DER first: plain attacks, all seeds."""
    return _by_section(rows, lambda own: summary_table(grid(own), own))


def grid_markdown(rows: Sequence[GridRow]) -> str:
    """Return ACC / ASR / lift of plain attacks x defences; the best of each line in bold."""
    return _by_section(rows, lambda own: grid_table(grid(own)))


def adaptive_markdown(rows: Sequence[GridRow]) -> str:
    """Return ACC / ASR / lift of adaptive attacks x defences."""
    return _by_section(rows, lambda own: grid_table(both_grids(own)[1]))


def relearning_markdown(rows: Sequence[GridRow]) -> str:
    """Return the area under the relearning curve, models x attacks."""
    return _by_section(rows, relearning_table)


def reactivation_markdown(rows: Sequence[GridRow]) -> str:
    """Return the ASR under perturbed triggers, a line per model."""
    return _by_section(rows, reactivation_table)


def ablation_markdown(rows: Sequence[GridRow]) -> str:
    """Return one table per factor."""
    return "\n\n".join(map(to_markdown, ablation_tables(rows).values()))


def goals_markdown(rows: Sequence[GridRow]) -> str:
    """Return the goals of D3 as a list, and where another defence does better."""
    parts = []
    for name, own in sections(rows).items():
        lines = [f"**{name}**", ""] if name else []
        lines += [f"- {line}" for line in goal_lines(judge_goals(own))]
        better = better_table(both_grids(own))
        if better.lines:
            lines += ["", "Where another defence does better:", "", to_markdown(better)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def goal_lines(goals: Sequence[Goal]) -> list[str]:
    """Return one line per goal: reached, missed or not measured, and the number."""
    return [
        f"{goal.outcome}: {goal.text}" + (f" ({goal.found})" if goal.found else "")
        for goal in goals
    ]


def benchmark_markdown(rows: Sequence[GridRow]) -> str:
    """Return all tables, a heading above each part that is not empty."""
    parts = {
        "Did D3 reach its goals?": goals_markdown(rows),
        "Defences, best first": summary_markdown(rows),
        "Every attack against every defence": grid_markdown(rows),
        "Adaptive attackers": adaptive_markdown(rows),
        "Relearning": relearning_markdown(rows),
        "Re-activation": reactivation_markdown(rows),
        "Ablations": ablation_markdown(rows),
    }
    return "\n\n".join(f"## {heading}\n\n{text}" for heading, text in parts.items() if text) + "\n"


def flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON of a row for CSV: intervals and ablations in columns of their own, other lists as JSON.

    Example:
        >>> flat_row({"acc": 0.9, "acc_interval": [0.8, 0.95], "ks": [1, 2], "refused": None})
        {'acc': 0.9, 'acc_interval_low': 0.8, 'acc_interval_high': 0.95, 'ks': '[1, 2]', 'refused': None}
    """  # noqa: E501
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("_interval"):
            flat[f"{key}_low"], flat[f"{key}_high"] = value or (None, None)
        elif key == "ablation":
            flat |= {f"{key}_{part}": (value or {}).get(part) for part in ("factor", "value")}
        elif isinstance(value, (list, tuple, Mapping)):
            flat[key] = json.dumps(value)
        else:
            flat[key] = value
    return flat


def write_benchmark(
    rows: Sequence[GridRow],
    preset: Any,
    command: str,
    folder: Path,
    console: Console,
    missing: int = 0,
) -> None:
    """Print the summary and write table.json, .md, .csv, .png and index.html.

    Args:
        rows: of all finished jobs.
        preset: the preset that was run, a dataclass.
        command: the command line, without paths.
        folder: of the files; it exists.
        console: receives the summary.
        missing: number of jobs that have not been run yet.

    Raises:
        ValueError: a NaN or inf among the numbers; a folder that does not exist.
    """
    settings = {**asdict(preset), **({MISSING: missing} if missing else {})}
    results = Results(command, settings, rows)
    written = ["index.html", "table.md", "table.csv", "table.json"]
    first = grid(next(iter(sections(rows).values())))
    content = _page(rows, results, missing)
    with written_together(folder) as place:
        results.write(place / "table.json")
        _write_csv(rows, place / "table.csv")
        text = _gap(missing, "\n\n") + benchmark_markdown(rows)
        (place / "table.md").write_text(text, encoding="utf-8")
        if first.attacks:
            figure = heat_map_figure(first, f"{EFFECTS[first.effect]}, points")
            save_png(figure, place / "table.png")
            written.append("table.png")
        write_page(place / "index.html", *_TEMPLATE, **content)
    for name, own in sections(rows).items():
        _print_section(name, own, console)
    if missing:
        console.print(_gap(missing), style="yellow", highlight=False)
    console.print(f"Written to {folder}: {', '.join(written)}.", highlight=False, markup=False)


def benchmark_page(rows: Sequence[GridRow], results: Results, home: str) -> str:
    """Return the page of a benchmark for ``d3fast view``.

    Args:
        rows: those of ``results`` that could be read.
        results: of table.json.
        home: address of the list that the page links to.
    """
    missing = results.settings.get(MISSING, 0)
    return render(
        *_TEMPLATE, **_page(rows, results, missing if type(missing) is int else 0), home=home
    )


def _gap(missing: int, end: str = "") -> str:
    if not missing:
        return ""
    have = "has" if missing == 1 else "have"
    return f"{count(missing, 'job')} {have} not been run yet; the same command continues.{end}"


def _write_csv(rows: Sequence[GridRow], path: Path) -> None:
    flat = [flat_row(row.to_row()) for row in rows]
    names = list(dict.fromkeys(key for row in flat for key in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)


def _print_section(name: str, rows: Sequence[GridRow], console: Console) -> None:
    made = grid(rows)
    title = f"Defences, best first{f': {name}' if name else ''} ({_extent(made)})"
    console.print(to_rich(summary_table(made, rows), title))
    for line in goal_lines(judge_goals(rows)):
        console.print(f"D3 {line}", highlight=False, markup=False)


def _extent(made: Grid) -> str:
    return f"{count(len(made.attacks), 'attack')}, {count(len(made.seeds), 'seed')}"


def _page(rows: Sequence[GridRow], results: Results, missing: int) -> dict[str, Any]:
    """Return the content of the template."""
    settings = sections(rows)
    made = [_section(name, own) for name, own in settings.items()]
    tables, figures = ablation_tables(rows), ablation_figures(rows)
    seeds = count(len({row.seed for row in rows}), "seed")
    return {
        "title": _title(rows),
        "lead": _lead(rows, seeds),
        "missing": _gap(missing),
        "sections": made,
        "seeds": seeds,
        "budget": shortest(results.settings.get("reactivate", {}).get("budget", 0)),
        "shades": _shade_texts(),
        "ablations": [
            {"title": factor, "table": tables[factor], "svg": inline_svg(figure, factor)}
            for factor, figure in figures.items()
        ],
        "command": results.command,
        "machine": _machine(results),
    }


def _section(name: str, rows: Sequence[GridRow]) -> dict[str, Any]:
    plain, adaptive = both_grids(rows)
    figures = []
    if plain.all_rows(D3) or any(map(plain.all_rows, plain.defenses)):
        figures = [
            _figure(
                der_figure(plain),
                "Defence effectiveness",
                "Large dot: mean; bar: range of the seeds; small dots: attacks.",
                name,
            ),
            _figure(
                scatter_figure(plain),
                "What is kept against what is left",
                "Best is the lower right. Large: mean of a defence; small: one attack each. "
                "The axis is logarithmic above one point.",
                name,
            ),
        ]
    curves = [
        _figure(figure, attack, "Line: mean over seeds; band: their range, where it fits.", name)
        for attack, figure in relearning_figures(rows).items()
    ]
    return {
        "name": name,
        "goals": judge_goals(rows),
        "better": better_table((plain, adaptive)),
        "summary": summary_table(plain, rows) if plain.attacks else Table((), ()),
        "attacks": count(len(plain.attacks), "attack"),
        "figures": figures,
        "effect": f"{EFFECTS[plain.effect]}, points:",
        "grid": grid_table(plain),
        "adaptive": grid_table(adaptive),
        "relearning": relearning_table(rows),
        "reactivation": reactivation_table(rows),
        "curves": curves,
    }


def _figure(figure: Any, title: str, caption: str, section: str) -> dict[str, Any]:
    alt = f"{title}, {section}" if section else title
    return {"title": title, "caption": caption, "svg": inline_svg(figure, alt)}


def _title(rows: Sequence[GridRow]) -> str:
    data, models = (
        ", ".join(dict.fromkeys(filter(None, (getattr(row, key) for row in rows))))
        for key in ("data", "model")
    )
    return " · ".join(part for part in (data, models) if part) or "Attacks against defences"


def _lead(rows: Sequence[GridRow], seeds: str) -> str:
    attacks = {row.attack for row in rows if isinstance(row, SuspectRow)}
    repairs = [row for row in rows if isinstance(row, DefenseRow) and not row.ablation]
    defenses = {row.defense for row in repairs}
    text = f"{count(len(attacks), 'backdoor attack')}, {count(len(defenses), 'defence')}, {seeds}."
    clean = sorted({row.clean for row in repairs if row.clean})
    if clean:
        text += f" Each defence has {' or '.join(map(str, clean))} clean samples"
        text += " and sees neither test data nor a trigger."
    return text


def _shade_texts() -> list[str]:
    between = [f"{shortest(low)}–{shortest(high)}" for low, high in pairwise(SHADES)]
    return [f"≤ {shortest(SHADES[0])}", *between, f"> {shortest(SHADES[-1])}"]


def _machine(results: Results) -> str:
    machine = [str(results.machine[key]) for key in ("cpu", "system") if key in results.machine]
    if "cores" in results.machine:
        machine.append(f"{results.machine['cores']} cores")
    machine += map(str, results.machine.get("gpus") or [])
    versions = [f"{name} {version}" for name, version in results.versions.items()]
    commit = [f"commit {results.commit[:10]}"] if results.commit else []
    return " · ".join([*machine, *versions, *commit, results.created])
