"""Every file of the corpus ends in one clear line: soon, in little memory, and nothing is changed.

The cases run one after the other in a process of their own (``child``), where a loader may add no
more than a gigabyte of address space and ends the process if it takes a minute.
"""

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest

from d3fast.io.untrusted import printable
from tests.hostile.child import GROUPS
from tests.hostile.files import LOADS, Reduced

ROOT = Path(__file__).parents[2]
SECONDS = 5
MEMORY = 300 * 2**20


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """What became of the cases of each group."""
    command = [sys.executable, "-m", "tests.hostile.child", str(tmp_path_factory.mktemp("hostile"))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    ended = [json.loads(line) for line in ran.stdout.splitlines()]
    last = f"{ended[-1]['group']}: {ended[-1]['name']}" if ended else "the start"
    assert ran.returncode == 0, f"it ended after {last}: {ran.stderr[-2000:]}"
    return ended


@pytest.fixture(params=GROUPS)
def group(request, ends):
    """The cases of a group, and what became of each."""
    mine = [end for end in ends if end["group"] == request.param]
    return list(zip(GROUPS[request.param][0], mine, strict=True))


def _odd(group, wrong):
    """Names of the cases that are not as they should be, each with its line."""
    return {case.name: end["line"][:300] for case, end in group if wrong(case, end)}


def test_every_file_is_refused_by_a_value_error_or_an_os_error(group):
    assert not _odd(group, lambda case, end: not end["usable"] and case.says != LOADS)


def test_what_is_wrong_beside_the_weights_has_no_effect(group):
    assert not _odd(group, lambda case, end: end["type"] is not None and case.says == LOADS)


def test_every_error_is_one_short_line_that_prints(group):
    assert not _odd(
        group,
        lambda case, end: (
            not end["line"].isprintable() or (len(end["line"]) > 1200 and end["type"] != "OSError")
        ),
    )


def test_every_error_says_what_is_wrong(group):
    assert not _odd(
        group, lambda case, end: case.says != LOADS and not re.search(case.says, end["line"])
    )


def test_every_error_names_the_file(group):
    """Or the folder that it is in; long names have their ends."""

    def silent(case, end):
        path = Path(end["path"])
        names = printable(path.name)[-40:], printable(path.parent.name)[-40:]
        return case.says != LOADS and not any(name in end["line"] for name in names)

    assert not _odd(group, silent)


def test_none_takes_long(group):
    assert not _odd(group, lambda case, end: end["seconds"] > SECONDS)


def test_none_takes_memory(group):
    assert not _odd(group, lambda case, end: end["memory"] > MEMORY)


def test_nothing_is_written_and_no_code_is_run(group):
    assert not _odd(group, lambda case, end: bool(end["new"]))


def test_the_codes_in_the_corpus_would_run(tmp_path):
    """A mark that could not appear would prove nothing."""
    pickle.loads(pickle.dumps(Reduced(os.system, f"touch {tmp_path / 'mark'}")))
    assert (tmp_path / "mark").exists()
