"""Arithmetic of the loop over a chunk's elements that step_math.h does not have."""

import ctypes
import math

import numpy as np
import pytest

EDGES = [0.0, -0.0, 1e-45, -3e-42, 1.2e-38, 3.4e38, -3.4e38, math.inf, -math.inf, math.nan, 1.0]


@pytest.mark.parametrize("divisor", [3.0, 1024.0, 65536.0, 0.1, 7.7e-5, 12345.678, 2.0**-20])
def test_gradients_are_divided_as_the_compiler_would(host_library, divisor):
    rng = np.random.default_rng(0)
    exponents = np.exp2(rng.integers(-120, 120, 20_000))
    numbers = np.concatenate([EDGES, rng.standard_normal(20_000) * exponents]).astype(np.float32)
    quotients = np.empty_like(numbers)
    host_library.host_divide(
        ctypes.c_int64(len(numbers)),
        numbers.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_float(divisor),
        quotients.ctypes.data_as(ctypes.c_void_p),
    )
    with np.errstate(over="ignore"):
        expected = numbers / np.float32(divisor)
    exact = ~(np.abs(numbers) < 2.0**-100)
    np.testing.assert_array_equal(quotients[exact], expected[exact])
    np.testing.assert_array_max_ulp(quotients[~exact], expected[~exact], 1)
