# SPDX-License-Identifier: Apache-2.0
"""Tables and a plot of one result file: ``python -m benchmarks.speed.report FILE [--plot PNG]``.

Writes Markdown to standard output. Ratios in the file are medians over rounds of ratios within a
round; only inverses and units are computed here.
"""

import argparse
from collections.abc import Callable, Mapping

from benchmarks.speed.contenders import BALL_INSIDE, FREE, OURS, SINGLE, SPHERE, VARIANTS
from benchmarks.speed.peers import AUTOGRAD, COMPILE, FOREACH, PEERS, PLAIN, SGD
from benchmarks.speed.plot import roofline
from d3fast.results.format import MISSING, fixed, percent, significant
from d3fast.results.plot import save_png
from d3fast.results.store import Results, read_results
from d3fast.results.table import Row, text_table, to_markdown


def of_kind(results: Results, kind: str) -> list[Row]:
    """Return the rows of one kind, in order."""
    return [row for row in results.rows if row["kind"] == kind]


def by_workload(results: Results) -> dict[str, dict[str, Row]]:
    """Return the measured steps by workload and contender."""
    found: dict[str, dict[str, Row]] = {}
    for row in of_kind(results, "step"):
        if row["skipped"] is None:
            found.setdefault(row["workload"], {})[row["contender"]] = row
    return found


def _cell(row: Row | None, key: str, show: Callable[[float], str]) -> str:
    value = None if row is None else row.get(key)
    return MISSING if value is None else show(value)


def _times(value: float) -> str:
    return f"{fixed(value, 2)}×"


def _faster(ratio: float) -> str:
    return f"{significant(1 / ratio)}×"


def step_table(results: Results) -> str:
    """Return one line per workload: ratios to both floors (``yardsticks``) and to every peer."""
    headings = [
        "workload",
        "floor ms",
        "free ms",
        "× floor",
        "× lax",
        "sphere ms",
        "× floor",
        "× lax",
        "ball, inside",
        "torch SGD ms",
        "sphere / SGD",
        "vs autograd",
        "vs foreach",
        "vs compile",
    ]
    lines = []
    for workload, rows in by_workload(results).items():
        free, sphere, inside = (rows.get(name) for name in (FREE, SPHERE, BALL_INSIDE))
        lines.append(
            [
                workload,
                _cell(free, "floor_ms", significant),
                _cell(free, "ms", significant),
                _cell(free, "to_floor", _times),
                _cell(free, "to_lax_floor", _times),
                _cell(sphere, "ms", significant),
                _cell(sphere, "to_floor", _times),
                _cell(sphere, "to_lax_floor", _times),
                _cell(inside, "to_floor", _times),
                _cell(rows.get(SGD), "ms", significant),
                _cell(sphere, f"to_{SGD}", _times),
                *(_cell(sphere, f"to_{peer}", _faster) for peer in (AUTOGRAD, FOREACH, COMPILE)),
            ]
        )
    return to_markdown(text_table(headings, lines))


def short_table(results: Results) -> str:
    """Return a short ``step_table`` of the workloads with all tensors tracked and no busy core."""
    headings = [
        "workload",
        "sphere ms",
        "× floor",
        "free, × floor",
        "/ torch's fused SGD",
        "faster than autograd",
        "than foreach",
    ]
    lines = []
    for workload, rows in by_workload(results).items():
        free, sphere = rows.get(FREE), rows.get(SPHERE)
        if not workload.endswith((", head", " busy")):
            lines.append(
                [
                    workload,
                    _cell(sphere, "ms", significant),
                    _cell(sphere, "to_floor", _times),
                    _cell(free, "to_floor", _times),
                    _cell(sphere, f"to_{SGD}", _times),
                    *(_cell(sphere, f"to_{peer}", _faster) for peer in (AUTOGRAD, FOREACH)),
                ]
            )
    return to_markdown(text_table(headings, lines))


def half_table(results: Results) -> str:
    """Return every contender on weights of a half type: ratios to floor, torch and plain step."""
    headings = [
        "workload",
        "contender",
        "ms",
        "quartiles",
        "× floor",
        "/ torch's fused SGD",
        "faster than plain PyTorch",
    ]
    lines = [
        [
            workload,
            name,
            significant(row["ms"]),
            f"{significant(row['ms_q1'])} to {significant(row['ms_q3'])}",
            _times(row["to_floor"]),
            _cell(row, f"to_{SGD}", _times),
            _cell(row, f"to_{PLAIN}", _faster),
        ]
        for workload, rows in by_workload(results).items()
        if SINGLE in rows
        for name, row in rows.items()
    ]
    return to_markdown(text_table(headings, lines))


def constraint_table(results: Results) -> str:
    """Return every variant against the floor, on the workloads that have them all."""
    found = {w: r for w, r in by_workload(results).items() if all(v in r for v in VARIANTS)}
    lines = [
        [
            name.removeprefix(f"{OURS} "),
            *(_cell(rows[name], "to_floor", _times) for rows in found.values()),
        ]
        for name in VARIANTS
    ]
    return to_markdown(text_table(["time / floor", *found], lines))


def cost_table(results: Results) -> str:
    """Return extra memory in bytes per parameter, and host time."""
    lines = []
    for workload, rows in by_workload(results).items():
        for name in (SPHERE, *PEERS):
            row = rows.get(name)
            if row is not None:
                count = row["tracked"] + row["plain"]
                kept, passing = (row[key] / count for key in ("extra_kept", "extra_passing"))
                quartiles = f"{significant(row['ms_q1'])} to {significant(row['ms_q3'])}"
                lines.append(
                    [
                        workload,
                        name,
                        significant(row["ms"]),
                        quartiles,
                        str(row["rounds"]),
                        significant(row["gbps"]),
                        significant(kept),
                        significant(passing),
                        significant(1e3 * row["host_ms"]),
                    ]
                )
    headings = [
        "workload",
        "contender",
        "ms",
        "quartiles",
        "rounds",
        "GB/s",
        "kept B/param",
        "passing B/param",
        "host µs",
    ]
    return to_markdown(text_table(headings, lines))


def bandwidth_table(results: Results) -> str:
    """Return the bandwidth of the yardsticks at each footprint."""
    found: dict[str, dict[str, Row]] = {}
    for row in of_kind(results, "bandwidth"):
        found.setdefault(row["workload"], {})[row["yardstick"]] = row
    names = list(dict.fromkeys(name for rows in found.values() for name in rows))
    lines = [
        [
            workload,
            significant(next(iter(rows.values()))["footprint"] / 1e6),
            *(_cell(rows.get(name), "gbps", significant) for name in names),
        ]
        for workload, rows in found.items()
    ]
    return to_markdown(
        text_table(["footprint of", "MB", *(f"{name} GB/s" for name in names)], lines)
    )


def repair_table(results: Results) -> str:
    """Return the whole repairs."""
    headings = [
        "data",
        "repaired by",
        "seconds",
        "training",
        "evaluation",
        "time ratio",
        "ACC %",
        "ASR %",
        "RA %",
    ]
    lines = [
        [
            f"{row['data']}, {row['epochs']} epochs",
            row["contender"],
            *(
                significant(row[key])
                for key in ("seconds", "training_seconds", "evaluation_seconds")
            ),
            _times(row["to_d3fast"]),
            *(percent(row[key]) for key in ("acc", "asr", "ra")),
        ]
        for row in of_kind(results, "detoxify")
    ]
    return to_markdown(text_table(headings, lines))


TABLES: Mapping[str, tuple[str, Callable[[Results], str]]] = {
    "One step": ("step", step_table),
    "Constraints": ("step", constraint_table),
    "Time, memory and host time": ("step", cost_table),
    "Yardsticks": ("bandwidth", bandwidth_table),
    "A whole repair": ("detoxify", repair_table),
}


def report(results: Results) -> str:
    """Return all tables of a result file in Markdown."""
    machine = results.machine
    what = ", ".join(machine["gpus"]) if results.settings["device"] == "cuda" else machine["cpu"]
    parts = [
        f"{what}; {machine['threads']} threads; torch {results.versions['torch']}; "
        f"d3fast {results.versions['d3fast']} at {(results.commit or 'unknown')[:12]}; "
        f"{results.created}. Command: `{results.command}`"
    ]
    skipped = [r for r in of_kind(results, "step") if r["skipped"] is not None]
    parts += [f"Skipped: {r['workload']}, {r['contender']}: {r['skipped']}" for r in skipped]
    for title, (kind, table) in TABLES.items():
        if of_kind(results, kind):
            parts.append(f"### {title}\n\n{table(results)}")
    return "\n\n".join(parts)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.report", description=__doc__)
    parser.add_argument("file", help="a JSON of benchmarks/results")
    parser.add_argument("--plot", help="write the roofline to this PNG")
    arguments = parser.parse_args()
    results = read_results(arguments.file)
    print(report(results))
    if arguments.plot:
        save_png(roofline(results), arguments.plot)


if __name__ == "__main__":
    main()
