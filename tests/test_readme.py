"""The README shows the numbers of the committed results, and its code runs."""

import re
from pathlib import Path

import pytest

from d3fast.report.demo import demo_markdown
from d3fast.report.results import read_results

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["demo-digits", "demo-fashion-mnist"])
def test_tables_are_those_of_the_results(name):
    results = read_results(ROOT / "benchmarks" / "results" / f"{name}.json")
    shown = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert shown is not None
    assert shown.group(1) == demo_markdown(results.rows)


def test_the_swap_example_runs():
    example = re.search(r"## Swap the optimizer\n\n```python\n(.*?)```", README, re.DOTALL)
    assert example is not None
    exec(example.group(1), {})


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
