# SPDX-License-Identifier: Apache-2.0
"""A report as one HTML file with its styles and figures inside; it loads nothing.

``templates/`` holds what every report shares: ``page.html``, the frame that reports extend,
``page.css``, its style (light or dark as the reader's system, plain on paper), and ``tables.html``,
the macros of tables. A report's own template lies in ``templates/`` of its package. Jinja2 escapes
all text.
"""

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from d3fast.io.files import atomic_write

_SHARED = __name__.rpartition(".")[0]


@cache
def _environment(package: str) -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(_SHARED), PackageLoader(package)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, package: str = _SHARED, **content: Any) -> str:
    """Return a filled template.

    Args:
        template: its file name.
        package: the package whose ``templates/`` holds the file.
        content: the names that the template uses; a missing name raises.
    """
    return _environment(package).get_template(template).render(**content)


def write_page(path: str | Path, template: str, package: str = _SHARED, **content: Any) -> None:
    """Fill a template and write the page atomically; see ``render``.

    Raises:
        ValueError: the folder does not exist.
    """
    text = render(template, package, **content)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
