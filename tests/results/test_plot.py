"""Figures: PNG files, and SVG in the colours of the page."""

import re

import pytest
import torch
from matplotlib.figure import Figure

from d3fast.results.plot import inline_svg, save_png, show_image


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


def test_an_image_is_shown_whole_and_without_ticks():
    axes = Figure().subplots()
    show_image(axes, torch.linspace(0, 1, 12).view(3, 2, 2))
    assert axes.get_images()[0].get_array().shape == (2, 2, 3)
    assert [*axes.get_xticks(), *axes.get_yticks()] == []


def test_a_png_is_written_to_a_folder_that_exists(tmp_path):
    save_png(drawn(), tmp_path / "line.png")
    assert (tmp_path / "line.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="nowhere"):
        save_png(drawn(), tmp_path / "nowhere" / "line.png")
