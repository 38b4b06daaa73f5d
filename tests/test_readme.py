"""The README shows the numbers of the committed results, and its code runs."""

import re

import pytest

from benchmarks import readme
from d3fast.report.results import Results

ROOT = readme.ROOT
README = readme.README.read_text(encoding="utf-8")


def test_tables_are_those_of_the_results():
    assert "<!-- table: demo-digits -->" in README
    assert readme.filled(README) == README


def test_results_without_a_table_are_refused(tmp_path):
    Results("d3fast demo", {}, []).write(tmp_path / "other.json")
    with pytest.raises(ValueError, match="no table is known for results named 'other'"):
        readme.filled("<!-- table: other -->\n<!-- end -->", tmp_path)


def test_the_swap_example_runs():
    example = re.search(r"## Swap the optimizer\n\n```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    exec(example.group(1), {})


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
