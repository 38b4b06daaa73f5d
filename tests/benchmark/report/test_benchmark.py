"""What the benchmark leaves behind: one page, tables, CSV and JSON, all from rows."""

import csv
import io
import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest
from msgspec.structs import replace
from rich.console import Console

from d3fast.benchmark.report.benchmark import (
    ablation_markdown,
    adaptive_markdown,
    benchmark_markdown,
    flat_row,
    goals_markdown,
    grid_markdown,
    relearning_markdown,
    summary_markdown,
    write_benchmark,
)
from d3fast.results.schema.benchmark import CleanRow, DefenseRow, RelearningRow, SuspectRow
from d3fast.results.store import read_results


@dataclass(frozen=True)
class Preset:
    """A preset with one choice."""

    seeds: int = 3


def write(rows, folder, missing=0):
    """Write everything; what was printed."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    write_benchmark(rows, Preset(), "d3fast benchmark", folder, console, missing)
    return out.getvalue()


@pytest.fixture(scope="module")
def whole(grid_rows):
    """All kinds of rows."""
    return grid_rows(attacks=("badnets", "sig"), defenses=("fine-tuning", "anp", "sau", "d3"))


@pytest.fixture(scope="module")
def written(whole, tmp_path_factory):
    """A folder with everything in it, and what was printed; three cells are missing."""
    folder = tmp_path_factory.mktemp("benchmark")
    return folder, write(whole, folder, missing=3)


@pytest.fixture(scope="module")
def page(written):
    return (written[0] / "index.html").read_text(encoding="utf-8")


class Tags(HTMLParser):
    """Counts tags and notes those that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.seen = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in ("meta", "br", "col", "path", "use"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("path", "use") and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def test_every_row_is_in_the_json_with_the_settings(whole, written):
    results = read_results(written[0] / "table.json")
    assert list(results.rows) == json.loads(json.dumps([row.to_row() for row in whole]))
    assert results.settings == {"seeds": 3, "missing": 3}


def test_every_row_is_a_line_of_the_csv(whole, written):
    with (written[0] / "table.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(whole)
    first = next(line for line in lines if line["kind"] == "repair")
    assert float(first["acc_interval_low"]) < float(first["acc_interval_high"])
    assert first["ra_interval_low"] == first["refused"] == ""
    assert {line["ablation_factor"] for line in lines} == {
        "",
        "lambda",
        "warm start",
        "clean share",
    }


def test_csv_has_no_none_and_lists_as_json():
    assert flat_row({"ks": [0, 1], "options": {"a": 1}, "ablation": None}) == {
        "ks": "[0, 1]",
        "options": '{"a": 1}',
        "ablation_factor": None,
        "ablation_value": None,
    }


def test_the_page_is_well_formed_and_loads_nothing(page):
    tags = Tags()
    tags.feed(page)
    assert tags.open == tags.wrong == []
    assert not {"script", "link", "iframe", "img"} & set(tags.seen)
    assert not re.search(r"url\((?!#)|@import|(src|href)=\"(?!table\.|#)", page)
    # the two of every grid, one per relearning attack, one per ablation
    assert tags.seen.count("svg") == 2 + 2 + 3


def test_the_page_explains_every_measure(page):
    for term in ("ACC", "ASR", "Clean model", "Floor", "Lift", "RA", "DER"):
        assert f"<dt>{term}</dt>" in page
    assert "<h2>Limits</h2>" in page


def test_names_are_escaped_in_the_page(grid_rows, tmp_path):
    bad = "<script>alert('x')</script> & co"
    few = grid_rows(seeds=1, attacks=("sig",), defenses=("anp", "sau", "d3"))
    rows = [row for row in few if not row.ablation]
    rows = [replace(row, defense=bad) if row.defense == "sau" else row for row in rows]
    rows = [replace(row, refused=bad) if row.defense == "anp" else row for row in rows]
    write(rows, tmp_path)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_jobs_that_were_not_run_are_announced_everywhere(written, page):
    folder, printed = written
    for text in (printed, page, (folder / "table.md").read_text(encoding="utf-8")):
        assert "3 jobs have not been run yet" in text


def test_the_terminal_shows_the_summary_the_verdict_and_the_files(written):
    folder, printed = written
    assert "Defences, best first (2 attacks, 3 seeds)" in printed
    assert "D3 reached: best mean DER of all defences" in printed
    assert "index.html, table.md, table.csv, table.json, table.png." in printed
    assert (folder / "table.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("keep", [(), CleanRow, (CleanRow, SuspectRow), DefenseRow, RelearningRow])
def test_a_run_that_was_cut_off_is_written_too(whole, tmp_path, keep):
    rows = [row for row in whole if isinstance(row, keep)]
    write(rows, tmp_path, missing=9)
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "nan" not in re.sub(r"<style>.*?</style>", "", text, flags=re.DOTALL)


def test_nan_is_refused_before_anything_is_written(whole, tmp_path):
    rows = [replace(whole[0], acc=float("nan"))]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(rows, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_two_models_have_a_section_each(grid_rows, tmp_path):
    small = {"seeds": 1, "attacks": ("sig",), "adaptive": (), "defenses": ("sau", "d3")}
    rows = [row for m in ("net", "vit") for row in grid_rows(model=m, extras=False, **small)]
    printed = write(rows, tmp_path)
    assert "best first: vit" in printed
    assert "not been run" not in printed
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<h2 class="setting">(\w+)', page) == ["net", "vit"]
    assert page.count('<h3 class="part">Did D3 reach its goals?') == 2
    assert "not been run" not in page
    assert summary_markdown(rows).count("| d3 |") == 2
    assert "**vit**" in grid_markdown(rows)


def test_markdown_of_each_part_is_a_table(whole):
    rows = whole
    assert summary_markdown(rows).startswith("| defence | ACC % |")
    assert grid_markdown(rows).startswith("| ACC / ASR / lift % | floor | none | d3 |")
    assert "| badnets (sam-3) |" in adaptive_markdown(rows)
    assert "badnets (sam-3)" not in grid_markdown(rows)
    assert relearning_markdown(rows).startswith("| area | badnets | blended | mean |")
    assert ablation_markdown(rows).startswith("| d3: lambda |")
    assert goals_markdown(rows).startswith("- reached: mean lift")


def test_parts_that_have_nothing_have_no_heading(grid_rows):
    text = benchmark_markdown(grid_rows(adaptive=(), extras=False))
    assert "## Every attack against every defence" in text
    for heading in ("Adaptive attackers", "Relearning", "Ablations"):
        assert f"## {heading}" not in text
