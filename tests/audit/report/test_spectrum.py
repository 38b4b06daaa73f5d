"""The page of curvature and distance."""

import io
import re

import pytest
import torch
from rich.console import Console
from torch import nn

from d3fast.attacks import BadNets
from d3fast.audit.report.documents import SpectrumReport, parse_spectrum
from d3fast.audit.report.spectrum import (
    path_lines,
    prediction_table,
    spectrum_table,
    write_spectrum,
)
from d3fast.data import ImageData
from d3fast.results.schema.spectrum import PathPoint, PathRow
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
    assert text.count("on the straight line from the suspect the clean loss rises") == 2
    assert "Written to" in text


def test_the_table_has_a_line_per_model_and_an_error_beside_every_estimate(rows):
    found = parse_spectrum(rows)
    table = spectrum_table(found)
    assert [name for name, _ in table.lines] == found.names == ["suspect", "fine-tuned", "<d3>"]
    for _, cells in table.lines:
        texts = dict(zip(table.headings[1:], (cell.text for cell in cells), strict=True))
        for heading, text in texts.items():
            assert ("±" in text) == heading.startswith(("largest", "trace"))


def test_the_predictions_add_up(rows):
    found = parse_spectrum(rows)
    for row in found.predictions:
        assert row.predicted == pytest.approx(row.start + row.slope + row.curvature / 2)
    table = prediction_table(found)
    assert [name for name, _ in table.lines][:2] == ["fine-tuned, clean", "fine-tuned, backdoor"]


def _path(asr, acc=0.7):
    points = ((0.0, 0.9, 1.0), (0.5, acc, asr), (1.0, 0.8, asr), (2.0, 0.1, 0.0))
    points = [PathPoint(at=(t,), acc=a, asr=asr and r, clean_loss=0.1) for t, a, r in points]
    row = PathRow(model="d3", points=tuple(points), barrier=0.25)
    return SpectrumReport(models=(), spectra=(), paths=(row,))


def test_a_sentence_per_path_has_barrier_accuracy_and_asr():
    (line,) = path_lines(_path(0.1))
    for words in ("rises 0.25 nats", "ACC falls to 70.0 %", "below one half from t = 0.5 on"):
        assert words in line
    assert path_lines(_path(0.9))[0].endswith("and ASR stays above one half.")
    assert "ASR" not in path_lines(_path(None))[0]


def test_points_without_a_rate_are_left_out_of_the_sentence():
    assert "ACC falls to 80.0 %" in path_lines(_path(0.1, acc=None))[0]


def test_no_number_of_nan_is_written(rows, tmp_path):
    broken = [{**row, "trace": float("nan")} for row in rows]
    with pytest.raises(ValueError, match=r"trace must be .*, got nan"):
        write_spectrum(broken, {"samples": 1, "data": "", "params": ""}, "", tmp_path, Console())
    assert not list(tmp_path.iterdir())
