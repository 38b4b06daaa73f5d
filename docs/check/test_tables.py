# SPDX-License-Identifier: Apache-2.0
"""The tables in the pages are those of the committed results, and the README stays short."""

import re

import pytest

from benchmarks import readme
from docs.check.pages import ROOT, blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
WORDS = 800


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert readme.filled(text) == text


def test_every_page_with_a_table_is_checked():
    with_table = {
        path
        for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        if "<!-- table: " in path.read_text(encoding="utf-8")
    }
    assert with_table == set(readme.PAGES)


def test_the_readme_is_short():
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    assert len(prose.split()) <= WORDS


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    """The pages in docs/ are checked by the strict build of the site."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / name).read_text("utf-8")):
        assert (ROOT / target).exists(), target


def test_the_swap_example_of_the_readme_runs():
    (example,) = blocks(README)
    exec(example, {})
