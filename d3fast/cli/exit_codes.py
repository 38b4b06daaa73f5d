# SPDX-License-Identifier: Apache-2.0
"""The exit codes of all commands, which a CI gate reads; docs/exit-codes.md describes them."""

from collections.abc import Set

from d3fast.runtime.checks import check_choice

NOTHING = 0  # done, nothing found
SIGNS = 1  # done, signs of a backdoor in the model that the command delivers
REFUSED = 2  # could not run; one line on stderr says why
MISSED = 3  # done, the accuracy limit or another stated goal was missed
DEFECT = 70  # a defect in d3fast, with a traceback; EX_SOFTWARE of sysexits.h

FAILURES = ("signs", "accuracy")
FAIL_ON = ",".join(FAILURES)


def parse_fail_on(text: str) -> frozenset[str]:
    """Return the findings that give an exit code other than 0.

    Args:
        text: ``none``, or ``signs`` and ``accuracy`` separated by commas.

    Raises:
        ValueError: another word.

    Example:
        >>> sorted(parse_fail_on("signs, accuracy")), parse_fail_on("none")
        (['accuracy', 'signs'], frozenset())
    """
    words = [word.strip() for word in text.split(",")]
    for word in words:
        check_choice("fail-on", word, ("none", *FAILURES))
    if "none" in words and len(words) > 1:
        raise ValueError(f"fail-on must be none alone, got {text!r}")
    return frozenset(words) - {"none"}


def exit_code(signs: bool | None, missed: bool, fail_on: Set[str]) -> int:
    """Return the exit code of a command that has run; signs come before accuracy.

    Args:
        signs: signs of a backdoor; ``None`` where that is not known.
        missed: the accuracy limit was missed.
        fail_on: of ``parse_fail_on``.

    Example:
        >>> exit_code(True, True, {"signs", "accuracy"}), exit_code(True, True, {"accuracy"})
        (1, 3)
    """
    if signs and "signs" in fail_on:
        return SIGNS
    return MISSED if missed and "accuracy" in fail_on else NOTHING
