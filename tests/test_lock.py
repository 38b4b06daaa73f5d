# SPDX-License-Identifier: Apache-2.0
"""The lock file pins what is installed, and a package that it misses is named."""

import pytest

pytest.importorskip("tomllib", reason="tests.lock needs Python 3.11")

from tests.lock import roots, stale, written


def test_torch_is_pinned_for_every_python_and_the_rest_for_one():
    lines = written({"torch": "2.13.0", "numpy": "2.4.6"}).splitlines()
    assert lines[-2:] == ["torch==2.13.0", 'numpy==2.4.6 ; python_version == "3.11"']


def test_what_was_written_is_not_stale():
    found = {"torch": "2.13.0", "numpy": "2.4.6", "grpcio": "1.0"}
    assert stale(found, written(found)) == []


def test_a_missing_and_an_older_pin_are_named():
    text = written({"torch": "2.13.0", "numpy": "2.4.5", "not-installed": "1"})
    assert stale({"torch": "2.13.0", "numpy": "2.4.6", "new": "3"}, text) == [
        "constraints.txt pins new at no version, 3 is installed",
        "constraints.txt pins numpy at 2.4.5, 2.4.6 is installed",
    ]


def test_the_extras_are_those_of_ci():
    (own, *_) = roots({"dependency-groups": {"lint": []}})
    assert own.startswith("d3fast[docs,test,")
