"""The pages: what they hold, and that texts of strangers stay texts."""

import re
import shutil

import pytest

from d3fast.results.plot import save_png
from d3fast.view.listing import Library
from d3fast.view.pages import compare_page, error_page, list_page, run_page
from d3fast.view.query import Query
from tests.results.test_plot import drawn
from tests.view.runs import audit, demo_rows, everything, grid_rows, run

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def without_figures(monkeypatch):
    """Figures are most of the time of a page."""
    for module in ("audit.report.page", "benchmark.report.benchmark", "view.compare"):
        monkeypatch.setattr(f"d3fast.{module}.inline_svg", lambda figure, alt: "")


@pytest.fixture
def library(tmp_path):
    everything(tmp_path)
    return Library(tmp_path)


def page(library, key):
    return run_page(library.found().runs[key], library.root, "/")


def test_the_list_has_every_run_with_its_page_and_a_box_for_each_audit(library):
    text = list_page(library, Query()).rpartition("</style>")[2]
    assert text.count('<th scope="row">') == 6
    assert text.count('type="checkbox"') == 2
    assert 'href="/run?run=audit/net-one"' in text
    assert 'aria-label="Choose net-one to compare"' in text
    assert "6 runs" in text


def test_the_order_is_told_to_screen_readers_and_kept_by_the_form(library):
    query = Query(sort="acc", text="net", runs=("demo/demo", "audit/net-one"))
    text = list_page(library, query).rpartition("</style>")[2]
    assert text.count("aria-sort") == 1
    assert re.search(r'aria-sort="ascending"><button class="sort" name="sort" value="-acc">', text)
    assert '<input type="hidden" name="sort" value="acc">' in text
    assert '<input type="hidden" name="run" value="demo/demo">' in text
    assert text.count(" checked") == 1


def test_an_empty_folder_says_so_and_a_filter_without_a_hit_too(tmp_path, library):
    (tmp_path / "empty").mkdir()
    assert "There is nothing here yet" in list_page(Library(tmp_path / "empty"), Query())
    assert "No run has these words" in list_page(library, Query(text="nowhere"))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("audit/net-one", "<h2>Before and after</h2>"),
        ("benchmark/bench", "Did D3 reach its goals?"),
        ("demo/demo", "<td>99.0</td>"),
        ("attacks/attacks", "Goal reached by every attack"),
        ("audit/one-attack", "Goal reached by every attack"),
    ],
)
def test_each_run_has_its_page_with_a_way_back(library, key, words):
    text = page(library, key)
    assert words in text
    assert '<a href="/">' in text
    assert 'href="table.csv"' not in text


def test_a_picture_is_encoded_anew_and_a_link_out_of_the_folder_is_not_shown(library, tmp_path):
    assert "<img" not in page(library, "demo/demo")
    save_png(drawn(), library.root / "demo" / "demo.png")
    assert '<img class="picture" src="data:image/png;base64,' in page(library, "demo/demo")
    outside = tmp_path.parent / f"{tmp_path.name}.png"
    shutil.move(library.root / "demo" / "demo.png", outside)
    (library.root / "demo" / "demo.png").symlink_to(outside)
    assert "<img" not in page(library, "demo/demo")


def test_a_repaired_file_outside_the_folder_is_not_read(library, tmp_path):
    (library.root / "net-one" / "repaired.safetensors").symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="leads out of"):
        page(library, "audit/net-one")


def test_names_and_texts_of_strangers_are_escaped(tmp_path):
    name = "<img src=x onerror=alert(1)> & \"'"
    audit(tmp_path, name, model=HOSTILE, checkpoint=HOSTILE)
    audit(tmp_path, "other", config={HOSTILE: HOSTILE})
    run(tmp_path, "demo", "results.json", demo_rows(), command=HOSTILE, data=HOSTILE)
    library = Library(tmp_path)
    keys = (f"audit/{name}", "audit/other")
    for text in (
        list_page(library, Query(text=HOSTILE, runs=keys)),
        list_page(library, Query()),
        compare_page(library, Query(runs=keys), Query(runs=keys).address()),
        page(library, "demo/demo"),
        error_page(HOSTILE, HOSTILE, "/"),
    ):
        assert "<script" not in text
        assert "<img src=x" not in text


@pytest.mark.parametrize("keys", [(), ("audit/net-one",), ("audit/net-one",) * 2])
def test_a_comparison_needs_two_audits(library, keys):
    with pytest.raises(ValueError, match="Choose two audits"):
        compare_page(library, Query(runs=keys[:1]), "/")


def test_a_benchmark_is_no_audit(library):
    with pytest.raises(ValueError, match="bench is no audit"):
        compare_page(library, Query(runs=("audit/net-one", "benchmark/bench")), "/")


def test_jobs_that_were_not_run_are_on_the_page_of_a_benchmark(library):
    run(library.root, "bench", "table.json", grid_rows(), missing=3)
    assert "3 jobs have not been run yet" in page(library, "benchmark/bench")
