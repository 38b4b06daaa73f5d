"""Checks of options: every error names the option and the value."""

import math

import numpy as np
import pytest

from d3fast.runtime.checks import check_choice, check_integer, check_number


def test_integers_from_the_minimum_on_pass():
    check_integer("epochs", 1, 1)
    check_integer("epochs", 10**30, 1)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None, math.nan])
def test_anything_else_is_not_an_integer(value):
    with pytest.raises(ValueError, match="epochs must be an integer >= 1, got ") as error:
        check_integer("epochs", value, 1)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [0, 0.0, 1.5, np.float32(2)])
def test_finite_numbers_from_the_minimum_on_pass(value):
    check_number("lr", value)


@pytest.mark.parametrize("value", [-0.1, math.inf, -math.inf, math.nan])
def test_numbers_that_are_not_finite_or_too_small_are_refused(value):
    with pytest.raises(ValueError, match="lr must be finite and >= 0, got ") as error:
        check_number("lr", value)
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("value", [True, "1", None, 1j])
def test_anything_else_is_not_a_number(value):
    with pytest.raises(ValueError, match="lr must be a number, got "):
        check_number("lr", value)


def test_a_choice_is_listed_with_the_others():
    check_choice("mode", "a", {"a": 1, "b": 2})
    with pytest.raises(ValueError, match="mode must be one of 'a', 'b', got 'c'"):
        check_choice("mode", "c", ["a", "b"])
