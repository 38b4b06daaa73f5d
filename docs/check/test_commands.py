# SPDX-License-Identifier: Apache-2.0
"""Every command and option of d3fast that a page names exists under that name."""

import re

import pytest
import typer.main

from d3fast.cli import app
from docs.check.pages import DOCS, ROOT

# Options of the studies in benchmarks/, which are no commands of d3fast.
OF_STUDIES = {"--efficiency", "--latency", "--launch"}
PAGES = [
    path
    for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
    if path.stem not in {"commands", "old-names", "old-modules", "contributing", "changelog"}
]


def options(command):
    """Return the options of a command and its subcommands, without those that are hidden."""
    found = {name for p in command.params if not getattr(p, "hidden", False) for name in p.opts}
    found |= {name for p in command.params for name in p.secondary_opts}
    for sub in getattr(command, "commands", {}).values():
        found |= options(sub)
    return found


ROOT_COMMAND = typer.main.get_command(app)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_commands_and_options_exist(path):
    text = path.read_text(encoding="utf-8")
    wrong = []
    # To the next command, comment, prose or end of the code span.
    for name, rest in re.findall(r"(?<![\w/.-])d3fast ([a-z]+)((?:[^`\n#&]|(?<=\\)\n)*)", text):
        if name not in ROOT_COMMAND.commands:
            continue
        known = options(ROOT_COMMAND.commands[name])
        wrong += [
            f"d3fast {name} {o}" for o in re.findall(r"--[a-z][\w-]+", rest) if o not in known
        ]
    everywhere = options(ROOT_COMMAND) | OF_STUDIES
    for span in re.findall(r"`(--[^`]*)`", text):
        wrong += [o for o in re.findall(r"--[a-z][\w-]+", span) if o not in everywhere]
    assert wrong == []


def test_every_command_has_a_page_that_shows_it():
    pages = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    assert [name for name in ROOT_COMMAND.commands if f"d3fast {name}" not in pages] == []
