# SPDX-License-Identifier: Apache-2.0
"""What ``d3fast spectrum`` prints and leaves behind: a table, one page, JSON.

Everything is made from the rows of ``d3fast.spectrum.curvature_report``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from d3fast.audit.report.spectrum_plots import (
    density_figure,
    distance_figure,
    eigenvalue_figure,
    path_figure,
)
from d3fast.results.format import percent, shortest, significant
from d3fast.results.page import write_page
from d3fast.results.plot import inline_svg
from d3fast.results.store import Results
from d3fast.results.table import Cell, Table, to_markdown, to_rich

Row = Mapping[str, Any]


def _of(rows: Sequence[Row], kind: str, **wanted: Any) -> list[Row]:
    wanted["kind"] = kind
    return [row for row in rows if wanted.items() <= {key: row.get(key) for key in wanted}.items()]


def models_of(rows: Sequence[Row]) -> list[str]:
    """Names of the models, the suspect first."""
    return [row["model"] for row in _of(rows, "model")]


def _losses_of(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["loss"] for row in _of(rows, "spectrum")))


def _with_error(value: float, error: float | None) -> str:
    return significant(value) + ("" if error is None else f" ± {significant(error, 2)}")


def spectrum_table(rows: Sequence[Row]) -> Table:
    """One line per model: rates, losses, largest eigenvalue and trace of every loss."""
    losses = _losses_of(rows)
    headings = ["model", "ACC %", "ASR %"]
    for loss in losses:
        headings += [f"{loss} loss", f"largest eigenvalue, {loss}", f"trace, {loss}"]
    lines = []
    for measured in _of(rows, "model"):
        name = measured["model"]
        cells = [measured["acc"], measured["asr"]]
        texts = [percent(rate) for rate in cells]
        for loss in losses:
            (found,) = _of(rows, "spectrum", model=name, loss=loss)
            texts += [
                significant(found["value"]),
                _with_error(found["eigenvalues"][0], found["residuals"][0]),
                _with_error(found["trace"], found["trace_error"]),
            ]
        lines.append((name, tuple(Cell(text) for text in texts)))
    return Table(tuple(headings), tuple(lines))


def prediction_table(rows: Sequence[Row]) -> Table:
    """One line per repair and loss: the suspect's quadratic expansion there, and the loss."""
    headings = (
        "repair, loss",
        "distance",
        "loss at suspect",
        "slope",
        "half curvature",
        "predicted",
        "actual",
        "with its own batch norm",
    )
    lines = []
    for row in _of(rows, "prediction"):
        numbers = (
            row["distance"],
            row["start"],
            row["slope"],
            row["curvature"] / 2,
            row["predicted"],
            row["actual"],
            row["other"],
        )
        texts = tuple(Cell(significant(value)) for value in numbers)
        lines.append((f"{row['model']}, {row['loss']}", texts))
    return Table(headings, tuple(lines))


def spectrum_markdown(rows: Sequence[Row]) -> str:
    """The table of models in Markdown."""
    return to_markdown(spectrum_table(rows))


def prediction_markdown(rows: Sequence[Row]) -> str:
    """The table of predictions in Markdown."""
    return to_markdown(prediction_table(rows))


def path_lines(rows: Sequence[Row]) -> list[str]:
    """What the way to every repair shows, a sentence each."""
    lines = []
    for row in _of(rows, "path"):
        inside = [point for point in row["points"] if 0 <= point["at"][0] <= 1]
        text = f"{row['model']}: on the straight way from the suspect the clean loss rises "
        text += f"{significant(row['barrier'])} nats above the line between the ends"
        text += f", ACC falls to {percent(min(point['acc'] for point in inside))} %"
        if inside[0]["asr"] is not None:
            below = [point["at"][0] for point in inside if point["asr"] < 0.5]
            text += (
                f", and ASR is below one half from t = {shortest(below[0])} on"
                if below
                else ", and ASR stays above one half"
            )
        lines.append(text + ".")
    return lines


def _figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    models, made = models_of(rows), []
    for loss in _losses_of(rows):
        own = _of(rows, "spectrum", loss=loss)
        for title, draw, caption in (
            (
                f"Density, {loss} loss",
                density_figure,
                "Stochastic Lanczos quadrature under Gaussian bumps; bands: one standard error.",
            ),
            (
                f"Eigenvalues, {loss} loss",
                eigenvalue_figure,
                "Bars, where they can be seen: residuals.",
            ),
        ):
            svg = inline_svg(draw(own, models), title)
            made.append({"title": title, "svg": svg, "caption": caption})
    return made


def _wide_figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    models, made = models_of(rows), []
    for row in _of(rows, "path"):
        title = f"From the suspect through {row['model']}"
        made.append({"title": title, "svg": inline_svg(path_figure(row, models[0]), title)})
    distances = _of(rows, "distance")
    if distances:
        title = "Distance per layer"
        made.append({"title": title, "svg": inline_svg(distance_figure(distances, models), title)})
    return made


def write_spectrum(
    rows: Sequence[Row], settings: Mapping[str, Any], command: str, folder: Path, console: Console
) -> None:
    """Print the table and write spectrum.json and index.html.

    Args:
        rows: of ``curvature_report``.
        settings: every choice that went into them.
        command: the command line, without paths.
        folder: where the files go; it exists.
        console: where the table goes.

    Raises:
        ValueError: a NaN or inf among the numbers.
    """
    results = Results(command, settings, rows)
    results.write(folder / "spectrum.json")
    table = spectrum_table(rows)
    loose = [row for row in _of(rows, "spectrum") if not row["converged"]]
    write_page(
        folder / "index.html",
        "spectrum.html",
        "d3fast.audit.report",
        title="Curvature and distance",
        table_of_models=table,
        predictions=prediction_table(rows),
        paths=path_lines(rows),
        figures=_figures(rows),
        wide=_wide_figures(rows),
        results=results,
        loose=len(loose),
        settings=settings,
    )
    console.print(to_rich(table, "Curvature and distance"))
    for line in path_lines(rows):
        console.print(line, highlight=False, markup=False)
    console.print(f"Written to {folder}: index.html, spectrum.json.", highlight=False, markup=False)
