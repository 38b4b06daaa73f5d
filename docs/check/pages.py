# SPDX-License-Identifier: Apache-2.0
"""Reads the pages that the checks compare and run."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
EXAMPLES = DOCS / "examples"


def page(name):
    """Return the text of a page."""
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def blocks(text, language="python"):
    """Return the code blocks of a text, in their order."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
