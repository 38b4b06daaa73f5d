"""The page of curvature and distance."""

import io
import re

import pytest
import torch
from rich.console import Console
from torch import nn

from d3fast.attacks import BadNets
from d3fast.audit.report.spectrum import (
    models_of,
    path_lines,
    prediction_markdown,
    prediction_table,
    spectrum_markdown,
    spectrum_table,
    write_spectrum,
)
from d3fast.audit.report.spectrum_plots import (
    density_figure,
    distance_figure,
    eigenvalue_figure,
    looks,
    path_figure,
)
from d3fast.data import ImageData
from d3fast.results.store import read_results
from d3fast.spectrum import CurvatureReportConfig, curvature_report


@pytest.fixture(scope="module")
def rows():
    models = {}
    for seed, name in enumerate(("suspect", "fine-tuned", "<d3>")):
        torch.manual_seed(seed)
        models[name] = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh(), nn.Linear(4, 3))
    data = ImageData(torch.rand(18, 1, 8, 8), torch.arange(18) % 3, ("a", "b", "c"))
    config = CurvatureReportConfig(k=2, probes=2, steps=4)
    return curvature_report(models, data, BadNets(target=0), config=config, progress=False)


@pytest.fixture
def written(rows, tmp_path):
    screen = io.StringIO()
    settings = {"samples": 18, "data": "toy", "params": "all"}
    write_spectrum(rows, settings, "d3fast spectrum", tmp_path, Console(file=screen, width=200))
    return tmp_path, screen.getvalue()


def test_it_leaves_a_page_and_json(written, rows):
    folder, _ = written
    assert {path.name for path in folder.iterdir()} == {"index.html", "spectrum.json"}
    results = read_results(folder / "spectrum.json")
    assert results.command == "d3fast spectrum"
    assert [row["kind"] for row in results.rows] == [row["kind"] for row in rows]


def test_the_page_loads_nothing_and_escapes_names(written):
    text = (written[0] / "index.html").read_text(encoding="utf-8")
    assert "<d3>" not in text
    assert "&lt;d3&gt;" in text
    assert not re.search(r"(src|href)=\"(?!#|spectrum\.json)|url\((?!#)|@import", text)
    assert text.count("<svg role") == 4 + 2 + 1
    assert "18 samples of toy" in text


def test_the_terminal_has_the_table_and_a_sentence_per_repair(written):
    _, text = written
    assert "largest eigenvalue, backdoor" in text
    assert text.count("on the straight way from the suspect the clean loss rises") == 2
    assert "Written to" in text


def test_the_table_has_a_line_per_model_and_an_error_beside_every_estimate(rows):
    shown = spectrum_table(rows)
    assert [name for name, _ in shown.lines] == models_of(rows) == ["suspect", "fine-tuned", "<d3>"]
    for _, items in shown.lines:
        texts = dict(zip(shown.headings[1:], (item.text for item in items), strict=True))
        for heading, text in texts.items():
            assert ("±" in text) == heading.startswith(("largest", "trace"))
    assert spectrum_markdown(rows).count("\n") == 4


def test_the_predictions_add_up(rows):
    for row in (row for row in rows if row["kind"] == "prediction"):
        total = row["start"] + row["slope"] + row["curvature"] / 2
        assert row["predicted"] == pytest.approx(total)
    assert [name for name, _ in prediction_table(rows).lines][:2] == [
        "fine-tuned, clean",
        "fine-tuned, backdoor",
    ]
    assert "half curvature" in prediction_markdown(rows)


def _path(asr):
    points = [
        {"at": [t], "acc": acc, "asr": rate, "clean_loss": 0.1, "backdoor_loss": None, "ra": None}
        for t, acc, rate in ((0.0, 0.9, 1.0), (0.5, 0.7, asr), (1.0, 0.8, asr), (2.0, 0.1, 0.0))
    ]
    return {"kind": "path", "model": "d3", "points": points, "barrier": 0.25}


def test_a_sentence_says_how_a_repair_is_reached():
    (line,) = path_lines([_path(0.1)])
    assert "rises 0.25 nats" in line
    assert "ACC falls to 70.0 %" in line
    assert "below one half from t = 0.5 on" in line
    assert path_lines([_path(0.9)])[0].endswith("and ASR stays above one half.")
    assert (
        "ASR"
        not in path_lines(
            [_path(None) | {"points": [{**point, "asr": None} for point in _path(None)["points"]]}]
        )[0]
    )


def test_figures_tell_models_apart_by_more_than_colour(rows):
    models = models_of(rows)
    found = looks(models)
    assert len({(dashes, marker) for _, dashes, marker in found.values()}) == 3
    spectra = [row for row in rows if row["kind"] == "spectrum" and row["loss"] == "clean"]
    labels = density_figure(spectra, models).axes[0].get_legend_handles_labels()[1]
    assert labels == models
    assert len(eigenvalue_figure(spectra, models).axes[0].containers) == 3


def test_a_path_marks_both_models_and_leaves_gaps_where_nothing_was_measured():
    row = _path(0.1)
    row["points"][3] |= {"acc": None, "asr": None, "clean_loss": None}
    figure = path_figure(row, "suspect")
    assert [text.get_text() for text in figure.axes[1].texts] == ["suspect", "d3"]
    drawn = figure.axes[1].lines[0].get_ydata()
    assert drawn[-1] != drawn[-1]


def test_a_layer_that_started_at_zero_leaves_a_gap(rows):
    own = [row for row in rows if row["kind"] == "distance"]
    layers = [{**layer, "relative": None} for layer in own[0]["layers"][:1]]
    figure = distance_figure([{**own[0], "layers": layers + own[0]["layers"][1:]}], models_of(rows))
    assert figure.axes[0].lines[0].get_ydata()[0] != figure.axes[0].lines[0].get_ydata()[0]


def test_no_number_of_nan_is_written(rows, tmp_path):
    broken = [{**row, "trace": float("nan")} for row in rows]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_spectrum(broken, {"samples": 1, "data": "", "params": ""}, "", tmp_path, Console())
    assert not list(tmp_path.iterdir())
