# SPDX-License-Identifier: Apache-2.0
"""Tables of the studies ``why`` and ``spectrum_peers`` for the documentation."""

from collections.abc import Callable, Sequence

from d3fast.results.schema.fields import read_only_row
from d3fast.results.schema.spectrum import (
    ModelDistances,
    PathRow,
    PredictionRow,
    SpectrumModelRow,
    SpectrumRow,
)
from d3fast.results.store import Results
from d3fast.results.table import Column, Row, mean_table, to_markdown

_ATTACKS = {"badnets": "BadNets", "blended": "Blended"}


def _grouped(rows: Sequence[Row]) -> dict[tuple[str, int, str], list[Row]]:
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["attack"], row["seed"], row["model"]), []).append(row)
    return groups


def _table(
    results: Results, columns: Sequence[Column], line: Callable[[Sequence[Row]], Row | None]
) -> str:
    """Return one line per attack and model: means and ranges over the seeds."""
    lines: dict[str, list[Row]] = {}
    for (attack, _, model), rows in _grouped(results.rows).items():
        if (values := line(rows)) is not None:
            lines.setdefault(f"{_ATTACKS[attack]}: {model}", []).append(values)
    return to_markdown(mean_table(columns, lines))


def why_table(results: Results) -> str:
    """Return rates, losses and sharpness per attack and model."""

    def line(rows: Sequence[Row]) -> Row | None:
        measured = read_only_row(rows, SpectrumModelRow)
        assert measured is not None
        values = {"acc": measured.acc, "asr": measured.asr}
        for loss in ("clean", "backdoor"):
            spectrum = read_only_row(rows, SpectrumRow, loss=loss)
            assert spectrum is not None
            values |= {
                f"{loss}_loss": spectrum.value,
                f"{loss}_slope": spectrum.gradient_norm,
                f"{loss}_top": spectrum.eigenvalues[0],
                f"{loss}_trace": spectrum.trace,
            }
        return values

    columns = [Column("acc", "ACC %", scale=100), Column("asr", "ASR %", scale=100)]
    for loss in ("clean", "backdoor"):
        columns += [
            Column(f"{loss}_loss", f"{loss} loss", digits=3),
            Column(f"{loss}_slope", "gradient", digits=2),
            Column(f"{loss}_top", "λ₁", digits=0),
            Column(f"{loss}_trace", "trace", digits=0),
        ]
    return _table(results, columns, line)


def path_table(results: Results) -> str:
    """Return distance, barrier, end of the ASR and the quadratic prediction per repair."""

    def line(rows: Sequence[Row]) -> Row | None:
        path, moved = read_only_row(rows, PathRow), read_only_row(rows, ModelDistances)
        if path is None or moved is None:
            return None
        backdoor = read_only_row(rows, PredictionRow, loss="backdoor")
        assert backdoor is not None
        assert moved.total is not None
        inside = [point for point in path.points if 0 <= point.at[0] <= 1]
        below = [point.at[0] for point in inside if point.asr is not None and point.asr < 0.5]
        return {
            "head": next(layer.relative for layer in moved.layers if layer.name == "head.weight"),
            "all": moved.total.relative,
            "barrier": path.barrier,
            "lowest": min(point.acc for point in inside if point.acc is not None),
            "gone": below[0] if below else None,
            "predicted": backdoor.predicted,
            "actual": backdoor.actual,
        }

    columns = [
        Column("head", "head moved", digits=2),
        Column("all", "all moved", digits=2),
        Column("barrier", "barrier, nats", digits=2),
        Column("lowest", "lowest ACC %", scale=100),
        Column("gone", "ASR < ½ from t", digits=2),
        Column("predicted", "backdoor loss predicted", digits=2),
        Column("actual", "actual", digits=2),
    ]
    return _table(results, columns, line)


def peers_table(results: Results) -> str:
    """Return seconds to the same residual, and their ratio to d3fast."""
    columns = [
        Column("seconds", "s"),
        Column("times_d3fast", "/ d3fast"),
        Column("last_run_times_d3fast", "last run alone / d3fast"),
        Column("permille", "residual, ‰ of λ", digits=2),
    ]
    lines = {
        row["contender"]: [{**row, "permille": 1000 * row["residual"]}] for row in results.rows
    }
    return to_markdown(mean_table(columns, lines))
