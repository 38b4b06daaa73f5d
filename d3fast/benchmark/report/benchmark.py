# SPDX-License-Identifier: Apache-2.0
"""What ``d3fast benchmark`` prints and leaves behind: tables, a verdict, one page, CSV and JSON.

Everything is made from the rows of the grid; no model is run here.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

from rich.console import Console

from d3fast.benchmark.report.numbers import D3, Grid, Row, both_grids, grid, sections
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
    relearning_table,
    summary_table,
)
from d3fast.benchmark.report.verdict import Verdict, verdicts
from d3fast.io.files import atomic_write
from d3fast.results.engine import Place
from d3fast.results.page import inline_svg, write_page
from d3fast.results.plot import save_png
from d3fast.results.store import Results
from d3fast.results.table import Shown, to_markdown, to_rich


def _by_section(rows: Sequence[Row], make: Any) -> str:
    """One Markdown table per setting, with a heading where there are several."""
    parts = []
    for name, own in sections(rows).items():
        shown = make(own)
        if shown.lines:
            parts.append((f"**{name}**\n\n" if name else "") + to_markdown(shown))
    return "\n\n".join(parts)


def summary_markdown(rows: Sequence[Row]) -> str:
    """One line per defence, best mean DER first: plain attacks, all seeds."""
    return _by_section(rows, lambda own: summary_table(grid(own), own))


def grid_markdown(rows: Sequence[Row]) -> str:
    """ACC / ASR of plain attacks x defences; the best ACC and ASR of each line in bold."""
    return _by_section(rows, lambda own: grid_table(grid(own)))


def adaptive_markdown(rows: Sequence[Row]) -> str:
    """The same for adaptive attacks."""
    return _by_section(rows, lambda own: grid_table(both_grids(own)[1]))


def relearning_markdown(rows: Sequence[Row]) -> str:
    """Area under the relearning curve, models x attacks."""
    return _by_section(rows, relearning_table)


def ablation_markdown(rows: Sequence[Row]) -> str:
    """One table per factor."""
    return "\n\n".join(map(to_markdown, ablation_tables(rows).values()))


def verdict_markdown(rows: Sequence[Row]) -> str:
    """The goals of D3 as a list, and where another defence does better."""
    parts = []
    for name, own in sections(rows).items():
        lines = [f"**{name}**", ""] if name else []
        lines += [f"- {line}" for line in verdict_lines(verdicts(own))]
        better = better_table(both_grids(own))
        if better.lines:
            lines += ["", "Where another defence does better:", "", to_markdown(better)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def verdict_lines(found: Sequence[Verdict]) -> list[str]:
    """One line per goal: reached, missed or not measured, and the number."""
    return [
        f"{verdict.word}: {verdict.goal}" + (f" ({verdict.text})" if verdict.text else "")
        for verdict in found
    ]


def benchmark_markdown(rows: Sequence[Row]) -> str:
    """All of it, a heading above each part that has something in it."""
    parts = {
        "Did D3 reach its goals?": verdict_markdown(rows),
        "Defences, best first": summary_markdown(rows),
        "Every attack against every defence": grid_markdown(rows),
        "Adaptive attackers": adaptive_markdown(rows),
        "Relearning": relearning_markdown(rows),
        "Ablations": ablation_markdown(rows),
    }
    return "\n\n".join(f"## {heading}\n\n{text}" for heading, text in parts.items() if text) + "\n"


def flat_row(row: Row) -> dict[str, Any]:
    """A row as CSV has it: intervals and mappings in columns of their own, other lists as JSON.

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
    rows: Sequence[Row],
    preset: Any,
    command: str,
    place: Place,
    console: Console,
    missing: int = 0,
) -> None:
    """Print the summary and write table.json, .md, .csv, .png and index.html.

    Args:
        rows: of all finished cells.
        preset: what was run, a dataclass.
        command: the command line, without paths.
        place: the files go to its folder.
        console: where the summary goes.
        missing: how many cells have not been run yet.

    Raises:
        ValueError: a NaN or inf among the numbers; a folder that does not exist.
    """
    results = Results(command, asdict(preset), rows)
    results.write(place.folder / "table.json")
    _write_csv(rows, place)
    with atomic_write(place.folder / "table.md") as temporary:
        temporary.write_text(_gap(missing, "\n\n") + benchmark_markdown(rows), encoding="utf-8")
    written = ["index.html", "table.md", "table.csv", "table.json"]
    first = grid(next(iter(sections(rows).values())))
    if first.attacks:
        figure = heat_map_figure(first, "ASR excess over the clean-model floor, points")
        save_png(figure, place.folder / "table.png")
        written.append("table.png")
    write_page(place.folder / "index.html", "benchmark.html", **_page(rows, results, missing))
    for name, own in sections(rows).items():
        _print_section(name, own, console)
    if missing:
        console.print(_gap(missing), style="yellow", highlight=False)
    console.print(
        f"Written to {place.folder}: {', '.join(written)}.", highlight=False, markup=False
    )


def _gap(missing: int, end: str = "") -> str:
    if not missing:
        return ""
    were = "cell has" if missing == 1 else "cells have"
    return f"{missing} {were} not been run yet; the same command goes on with them.{end}"


def _write_csv(rows: Sequence[Row], place: Place) -> None:
    flat = [flat_row(row) for row in rows]
    names = list(dict.fromkeys(key for row in flat for key in row))
    with (
        atomic_write(place.folder / "table.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(flat)


def _print_section(name: str, rows: Sequence[Row], console: Console) -> None:
    made = grid(rows)
    title = f"Defences, best first{f': {name}' if name else ''} ({_extent(made)})"
    console.print(to_rich(summary_table(made, rows), title))
    for line in verdict_lines(verdicts(rows)):
        console.print(f"D3 {line}", highlight=False, markup=False)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _extent(made: Grid) -> str:
    return f"{_count(len(made.attacks), 'attack')}, {_count(len(made.seeds), 'seed')}"


def _page(rows: Sequence[Row], results: Results, missing: int) -> dict[str, Any]:
    """What the template asks for."""
    settings = sections(rows)
    made = [_section(name, own) for name, own in settings.items()]
    tables, figures = ablation_tables(rows), ablation_figures(rows)
    seeds = _count(len({row["seed"] for row in rows}), "seed")
    return {
        "title": _title(rows),
        "lead": _lead(rows, seeds),
        "missing": _gap(missing),
        "sections": made,
        "seeds": seeds,
        "ours": D3,
        "shades": _shade_texts(),
        "ablations": [
            {"title": factor, "table": tables[factor], "svg": inline_svg(figure, factor)}
            for factor, figure in figures.items()
        ],
        "command": results.command,
        "machine": _machine(results),
    }


def _section(name: str, rows: Sequence[Row]) -> dict[str, Any]:
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
                "The dotted line is the floor; the axis is logarithmic above one point.",
                name,
            ),
        ]
    curves = [
        _figure(figure, attack, "Line: mean over seeds; band: their range.", name)
        for attack, figure in relearning_figures(rows).items()
    ]
    return {
        "name": name,
        "verdicts": verdicts(rows),
        "better": better_table((plain, adaptive)),
        "summary": summary_table(plain, rows) if plain.attacks else Shown((), ()),
        "attacks": _count(len(plain.attacks), "attack"),
        "figures": figures,
        "grid": grid_table(plain),
        "adaptive": grid_table(adaptive),
        "relearning": relearning_table(rows),
        "curves": curves,
    }


def _figure(figure: Any, title: str, caption: str, section: str) -> dict[str, Any]:
    alt = f"{title}, {section}" if section else title
    return {"title": title, "caption": caption, "svg": inline_svg(figure, alt)}


def _title(rows: Sequence[Row]) -> str:
    data, models = (
        ", ".join(dict.fromkeys(str(row[key]) for row in rows if row.get(key)))
        for key in ("data", "model")
    )
    return " · ".join(part for part in (data, models) if part) or "Attacks against defences"


def _lead(rows: Sequence[Row], seeds: str) -> str:
    attacks = {row["attack"] for row in rows if row["kind"] == "suspect"}
    repairs = [r for r in rows if r["kind"] == "repair" and not r.get("ablation")]
    defenses = {row["defense"] for row in repairs}
    text = (
        f"{_count(len(attacks), 'backdoor attack')}, {_count(len(defenses), 'defence')}, {seeds}."
    )
    clean = sorted({row["clean"] for row in repairs if row.get("clean")})
    if clean:
        text += f" Each defence has {' or '.join(map(str, clean))} clean samples"
        text += " and sees neither test data nor a trigger."
    return text


def _shade_texts() -> list[str]:
    between = [f"{low:g}–{high:g}" for low, high in pairwise(SHADES)]
    return [f"≤ {SHADES[0]:g}", *between, f"> {SHADES[-1]:g}"]


def _machine(results: Results) -> str:
    machine = [str(results.machine[key]) for key in ("cpu", "system") if key in results.machine]
    if "cores" in results.machine:
        machine.append(f"{results.machine['cores']} cores")
    machine += map(str, results.machine.get("gpus") or [])
    versions = [f"{name} {version}" for name, version in results.versions.items()]
    commit = [f"commit {results.commit[:10]}"] if results.commit else []
    return " · ".join([*machine, *versions, *commit, results.created])
