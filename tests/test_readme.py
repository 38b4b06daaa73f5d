"""The pages show the numbers of the committed results, and the README's code runs."""

import re

import pytest

from benchmarks import readme
from d3fast.results.store import Results

README = readme.PAGES[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_results(page):
    text = page.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    assert readme.filled(text) == text


def test_an_unknown_table_is_refused(tmp_path):
    Results("d3fast demo", {}, []).write(tmp_path / "other.json")
    with pytest.raises(ValueError, match=r"part must be one of demo, .* got 'tables'"):
        readme.filled("<!-- table: other#tables -->\n<!-- end -->", tmp_path)


def test_the_swap_example_runs():
    example = re.search(r"## Swap the optimizer\n\n```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    exec(example.group(1), {})


@pytest.mark.parametrize("page", readme.PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
