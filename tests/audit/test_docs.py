"""The page's example runs."""

import re
from pathlib import Path

from tests.audit.toys import Templates, samples

PAGE = Path(__file__).parents[2] / "docs" / "inspect.md"


def test_the_example_of_the_page_runs():
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    data = samples()
    known = {
        "model": Templates(shortcut=True),
        "images": data.images,
        "labels": data.labels,
        "classes": data.classes,
    }
    exec(example, known)
    assert known["found"].verdict.suspicious
