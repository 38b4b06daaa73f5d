"""Options known at run time become template arguments."""

import ctypes

import pytest


@pytest.mark.parametrize("first", [1, 2, 3])
@pytest.mark.parametrize("second", [False, True])
def test_every_listed_value_is_passed_as_the_constant_it_equals(common, first, second):
    assert common.chosen(ctypes.c_int(first), ctypes.c_bool(second)) == 10 * first + second


def test_the_last_value_is_taken_without_being_compared(common):
    assert common.chosen(ctypes.c_int(7), ctypes.c_bool(False)) == 20
