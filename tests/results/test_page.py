"""A report as one file that loads nothing."""

import re

import pytest
from jinja2 import UndefinedError
from matplotlib.figure import Figure

from d3fast.results.page import inline_svg, render, write_page


def drawn():
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "o-", color="#0072B2", label="a < b & c")
    axes.legend()
    return figure


def test_a_figure_takes_colours_and_font_from_the_page():
    svg = inline_svg(drawn(), "a line")
    assert "var(--blue)" in svg
    assert "#0072b2" not in svg
    assert "DejaVu" not in svg
    assert "var(--sans)" in svg


def test_a_figure_is_a_bare_element_with_a_name():
    svg = inline_svg(drawn(), 'it\'s "x" < y')
    assert svg.startswith('<svg role="img" aria-label="it&#39;s &#34;x&#34; &lt; y"')
    assert svg.rstrip().endswith("</svg>")
    assert "<metadata>" not in svg
    assert "a &lt; b &amp; c" in svg


def test_the_same_figure_gives_the_same_text():
    assert inline_svg(drawn(), "a line") == inline_svg(drawn(), "a line")


def test_ids_of_two_figures_on_a_page_do_not_meet():
    first, second = (
        set(re.findall(r'\bid="([^"]+)"', inline_svg(drawn(), name))) for name in ("one", "two")
    )
    assert first
    assert not first & second


def test_a_template_says_what_it_misses():
    with pytest.raises(UndefinedError, match="title"):
        render("page.html")


def test_texts_are_escaped_and_nothing_may_be_loaded(tmp_path):
    write_page(tmp_path / "page.html", "page.html", title="<script>alert(1)</script>")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>&lt;script&gt;" in text
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"(src|href)=|url\(|@import", text)


def test_the_page_is_made_for_light_dark_and_paper():
    text = render("page.html", title="x")
    for medium in ("(prefers-color-scheme: dark)", "@media print"):
        assert medium in text


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="there is no folder"):
        write_page(tmp_path / "nowhere" / "page.html", "page.html", title="x")
