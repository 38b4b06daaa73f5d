"""A report as one file that loads nothing."""

import re

import pytest
from jinja2 import UndefinedError

from d3fast.results.page import render, write_page


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
