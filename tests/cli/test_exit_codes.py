"""Exit codes, and ``--fail-on``."""

import pytest

from d3fast.cli.exit_codes import FAIL_ON, MISSED, NOTHING, SIGNS, exit_code, parse_fail_on


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("none", set()),
        ("signs", {"signs"}),
        ("accuracy", {"accuracy"}),
        (" accuracy ,signs", {"signs", "accuracy"}),
        (FAIL_ON, {"signs", "accuracy"}),
    ],
)
def test_the_words_of_fail_on(text, words):
    assert parse_fail_on(text) == words


@pytest.mark.parametrize("text", ["", "sign", "none,signs", "signs,,accuracy"])
def test_other_words_are_refused(text):
    with pytest.raises(ValueError, match="fail-on must be"):
        parse_fail_on(text)


@pytest.mark.parametrize(
    ("signs", "missed", "fail_on", "code"),
    [
        (False, False, FAIL_ON, NOTHING),
        (None, False, FAIL_ON, NOTHING),
        (True, False, FAIL_ON, SIGNS),
        (True, True, FAIL_ON, SIGNS),
        (False, True, FAIL_ON, MISSED),
        (True, True, "accuracy", MISSED),
        (False, True, "signs", NOTHING),
        (True, True, "none", NOTHING),
    ],
)
def test_the_code_follows_what_was_found_and_what_fails(signs, missed, fail_on, code):
    assert exit_code(signs, missed, parse_fail_on(fail_on)) == code
