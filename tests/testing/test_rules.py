"""The runner of a contract, and its own ``raises``."""

from pathlib import Path

import pytest

from d3fast.testing import rules


class Case:
    """Two of its three rules are broken."""

    def make(self):
        """Return nothing."""

    def rules(self):
        return (holds, says_something_else, raises_something_else)


def holds(case):
    assert case.make() is None


def says_something_else(case):
    with rules.raises("^a.c$"):
        raise ValueError("abcd")


def raises_something_else(case):
    raise KeyError("x")


def test_all_broken_rules_are_named_with_the_line_that_failed():
    with pytest.raises(AssertionError) as caught:
        rules.check(Case())
    first, *lines = str(caught.value).splitlines()
    assert first == "Case.make breaks 2 of 3 rules:"
    assert [line.split(":")[0].strip() for line in lines] == [
        "says_something_else",
        "raises_something_else",
    ]
    assert "'abcd' has no '^a.c$'" in lines[0]
    assert lines[1].endswith("KeyError: 'x' (at raise KeyError(\"x\"))")


def test_raises_needs_the_kind_and_the_text():
    with rules.raises("b"):
        raise ValueError("abc")
    with (
        pytest.raises(AssertionError, match="nothing raised ValueError with 'b'"),
        rules.raises("b"),
    ):
        pass
    with pytest.raises(TypeError), rules.raises("b"):
        raise TypeError("b")


def test_assertions_that_python_removed_are_no_pass():
    optimised = compile(Path(rules.__file__).read_text(), rules.__file__, "exec", optimize=1)
    module = {"__name__": "optimised", "__file__": rules.__file__}
    exec(optimised, module)
    with pytest.raises(RuntimeError, match="python -O removes the assertions"):
        module["check"](Case())
