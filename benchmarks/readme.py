# SPDX-License-Identifier: Apache-2.0
"""Puts the tables of committed results into README.md: ``python -m benchmarks.readme``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``; NAME is a file of
``benchmarks/results`` without its ending.
"""

import re
from pathlib import Path

from d3fast.report.demo import demo_markdown
from d3fast.report.results import Results, read_results

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
_BLOCK = re.compile(r"(<!-- table: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def table(name: str, results: Results) -> str:
    """The Markdown table of one result file, chosen by the kind of its name.

    Raises:
        ValueError: no table is known for such a name.
    """
    if name.startswith("demo-"):
        return demo_markdown(results.rows)
    raise ValueError(f"no table is known for results named {name!r}")


def filled(text: str, folder: Path = ROOT / "benchmarks" / "results") -> str:
    """A text with every table between markers made anew from the results in a folder."""

    def block(match: re.Match[str]) -> str:
        start, name, _, end = match.groups()
        return f"{start}{table(name, read_results(folder / f'{name}.json'))}\n{end}"

    return _BLOCK.sub(block, text)


if __name__ == "__main__":
    README.write_text(filled(README.read_text(encoding="utf-8")), encoding="utf-8")
