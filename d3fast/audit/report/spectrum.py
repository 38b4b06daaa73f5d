# SPDX-License-Identifier: Apache-2.0
"""Output of ``d3fast spectrum``: a table for the terminal, spectrum.json and a page."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console

from d3fast.audit.report.documents import Rows, SpectrumReport, parse_spectrum
from d3fast.audit.report.spectrum_plots import (
    density_figure,
    distance_figure,
    eigenvalue_figure,
    path_figure,
)
from d3fast.io.files import written_together
from d3fast.results.format import percent, shortest, significant
from d3fast.results.page import write_page
from d3fast.results.plot import inline_svg
from d3fast.results.store import Results
from d3fast.results.table import Cell, Table, to_rich

_SPECTRUM_FIGURES = (
    (
        "Density",
        density_figure,
        "Stochastic Lanczos quadrature under Gaussian bumps; bands: one standard error.",
    ),
    ("Eigenvalues", eigenvalue_figure, "Bars, where they can be seen: residuals."),
)


def _with_error(value: float, error: float | None) -> str:
    return significant(value) + ("" if error is None else f" ± {significant(error, 2)}")


def spectrum_table(found: SpectrumReport) -> Table:
    """Return one line per model: rates, losses, largest eigenvalue and trace of every loss."""
    headings = ["model", "ACC %", "ASR %"]
    for loss in found.losses:
        headings += [f"{loss} loss", f"largest eigenvalue, {loss}", f"trace, {loss}"]
    spectra = {(row.model, row.loss): row for row in found.spectra}
    lines = []
    for model in found.models:
        texts = [percent(rate) for rate in (model.acc, model.asr)]
        for loss in found.losses:
            row = spectra[model.model, loss]
            texts += [
                significant(row.value),
                _with_error(row.eigenvalues[0], row.residuals[0]),
                _with_error(row.trace, row.trace_error),
            ]
        lines.append((model.model, tuple(Cell(text) for text in texts)))
    return Table(tuple(headings), tuple(lines))


def prediction_table(found: SpectrumReport) -> Table:
    """Return one line per repaired model and loss: quadratic expansion and actual loss."""
    headings = (
        "model, loss",
        "distance",
        "loss at suspect",
        "slope",
        "half curvature",
        "predicted",
        "actual",
        "with its own batch norm",
    )
    lines = []
    for row in found.predictions:
        numbers = (
            row.distance,
            row.start,
            row.slope,
            row.curvature / 2,
            row.predicted,
            row.actual,
            row.other,
        )
        cells = tuple(Cell(significant(value)) for value in numbers)
        lines.append((f"{row.model}, {row.loss}", cells))
    return Table(headings, tuple(lines))


def path_lines(found: SpectrumReport) -> list[str]:
    """Describe the line of weights to every repaired model in one sentence each."""
    lines = []
    for row in found.paths:
        inside = [point for point in row.points if 0 <= point.at[0] <= 1 and point.acc is not None]
        if not inside:
            continue
        text = f"{row.model}: on the straight line from the suspect the clean loss rises "
        text += f"{significant(row.barrier)} nats above the line between the ends"
        text += f", ACC falls to {percent(min(point.acc or 0.0 for point in inside))} %"
        if inside[0].asr is not None:
            below = [p.at[0] for p in inside if p.asr is not None and p.asr < 0.5]
            text += (
                f", and ASR is below one half from t = {shortest(below[0])} on"
                if below
                else ", and ASR stays above one half"
            )
        lines.append(text + ".")
    return lines


def _figure(figure: Figure, title: str, caption: str = "") -> dict[str, Any]:
    return {"title": title, "svg": inline_svg(figure, title), "caption": caption}


def _spectrum_figures(found: SpectrumReport) -> list[dict[str, Any]]:
    return [
        _figure(draw(found.of_loss(loss), found.names), f"{name}, {loss} loss", caption)
        for loss in found.losses
        for name, draw, caption in _SPECTRUM_FIGURES
    ]


def _path_figures(found: SpectrumReport) -> list[dict[str, Any]]:
    figures = [
        _figure(path_figure(row, found.names[0]), f"From the suspect through {row.model}")
        for row in found.paths
    ]
    if found.distances:
        figures.append(_figure(distance_figure(found.distances, found.names), "Distance per layer"))
    return figures


def write_spectrum(
    rows: Rows, settings: Mapping[str, Any], command: str, folder: Path, console: Console
) -> None:
    """Print the table and write spectrum.json and index.html.

    Args:
        rows: of ``curvature_report``.
        settings: of the measurements.
        command: the command line, without paths.
        folder: of the files; it is made.
        console: for the table.

    Raises:
        ValueError: a NaN or inf among the numbers.
    """
    results = Results(command, settings, rows)
    found = parse_spectrum(results.rows, max_models=len(results.rows))
    table, lines = spectrum_table(found), path_lines(found)
    with written_together(folder) as place:
        results.write(place / "spectrum.json")
        write_page(
            place / "index.html",
            "spectrum.html",
            "d3fast.audit.report",
            title="Curvature and distance",
            table_of_models=table,
            predictions=prediction_table(found),
            paths=lines,
            figures=_spectrum_figures(found),
            wide=_path_figures(found),
            results=results,
            loose=sum(not row.converged for row in found.spectra),
            settings=settings,
        )
    console.print(to_rich(table, "Curvature and distance"))
    for line in lines:
        console.print(line, highlight=False, markup=False)
    console.print(f"Written to {folder}: index.html, spectrum.json.", highlight=False, markup=False)
