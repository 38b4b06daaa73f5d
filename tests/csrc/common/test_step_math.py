"""The step's mathematics, element by element and norm by norm, against its formulas."""

import ctypes
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

NONE, P1, P2 = range(3)
PLAIN, HEAVY_BALL, NESTEROV = range(3)
ORIGIN, REFERENCE = 1, 2
numbers = st.floats(-4, 4)
positive = st.floats(0.125, 4)


def step_element(common, push, momentum_kind, *values):
    given_, out = (ctypes.c_double * 12)(*values), (ctypes.c_double * 2)()
    common.step_element(push, momentum_kind, given_, out)
    return list(out)


def expected(push, kind, theta, theta_0, g, v, lr, momentum, decay, sign, w, rate, inverse):
    delta = theta - theta_0
    u = {
        NONE: 0.0,
        P1: math.copysign(1, delta) if delta else 0.0,
        P2: max(-1.0, min(1.0, delta * inverse)),
    }[push]
    d = sign * g + decay * theta - w * u
    if kind == PLAIN:
        return [theta - lr * d, v]
    v = momentum * v + rate * d
    return [theta - lr * (d + momentum * v if kind == NESTEROV else v), v]


ELEMENT = {
    "values": st.tuples(numbers, numbers, numbers, numbers),
    "options": st.tuples(positive, positive, st.floats(0, 0.25), st.sampled_from([-1.0, 1.0])),
    "w": positive,
    "rate": positive,
    "inverse": positive,
}


@pytest.mark.parametrize("push", [NONE, P1, P2])
@pytest.mark.parametrize("kind", [PLAIN, HEAVY_BALL, NESTEROV])
@given(**ELEMENT)
def test_an_element_takes_the_step_of_the_formula(
    common, push, kind, values, options, w, rate, inverse
):
    numbers_ = (*values, *options, w, rate, inverse)
    got = step_element(common, push, kind, *numbers_, inverse)
    assert got == pytest.approx(expected(push, kind, *numbers_), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", [PLAIN, HEAVY_BALL, NESTEROV])
@given(
    right=positive,
    **{
        **ELEMENT,
        "options": st.tuples(
            st.floats(0.125, 1), positive, st.floats(0, 0.25), st.sampled_from([-1.0, 1.0])
        ),
    },
)
def test_a_step_with_a_stale_norm_is_corrected_to_that_with_the_right_one(
    common, kind, values, options, w, rate, inverse, right
):
    numbers_ = (*values, *options, w, rate)
    corrected = step_element(common, P2, kind, *numbers_, inverse, right)
    want = expected(P2, kind, *numbers_, right)
    assert corrected == pytest.approx(want, rel=1e-9, abs=1e-9)


def step_adamw(common, push, maximize, *values):
    given_, out = (ctypes.c_double * 15)(*values), (ctypes.c_double * 3)()
    common.step_adamw(push, ctypes.c_bool(maximize), given_, out)
    return list(out)


def expected_adamw(push, maximize, values, options, decoupled, inverse):
    theta, theta_0, g, m, s = values
    lr, first, second, eps, decay, w, steps = options
    delta = theta - theta_0
    u = {
        NONE: 0.0,
        P1: math.copysign(1, delta) if delta else 0.0,
        P2: max(-1.0, min(1.0, delta * inverse)),
    }[push]
    d = (-g if maximize else g) - (0 if decoupled else w * u)
    m, s = first * m + (1 - first) * d, second * s + (1 - second) * d * d
    unbiased = m / (1 - first ** (steps + 1)), s / (1 - second ** (steps + 1))
    adaptive = unbiased[0] / (math.sqrt(unbiased[1]) + eps)
    return [(1 - lr * decay) * theta - lr * adaptive + (lr * w * u if decoupled else 0), m, s]


ADAMW = {
    "values": st.tuples(numbers, numbers, numbers, numbers, st.floats(0.01, 4)),
    "options": st.tuples(
        st.floats(0.01, 1),
        st.sampled_from([0.0, 0.5, 0.9]),
        st.sampled_from([0.5, 0.9, 0.999]),
        st.sampled_from([1e-8, 0.1]),
        st.floats(0, 0.4),
        positive,
        st.integers(0, 40),
    ),
    "decoupled": st.booleans(),
    "maximize": st.booleans(),
    "inverse": positive,
}


@pytest.mark.parametrize("push", [NONE, P1, P2])
@given(**ADAMW)
def test_an_element_takes_the_step_of_adamw(
    common, push, values, options, decoupled, maximize, inverse
):
    got = step_adamw(common, push, maximize, *values, *options, decoupled, inverse, inverse)
    want = expected_adamw(push, maximize, values, options, decoupled, inverse)
    assert got == pytest.approx(want, rel=1e-12, abs=1e-12)


@given(**ADAMW, right=positive)
def test_a_step_of_adamw_with_a_stale_norm_is_corrected_to_that_with_the_right_one(
    common, values, options, decoupled, maximize, inverse, right
):
    got = step_adamw(common, P2, maximize, *values, *options, decoupled, inverse, right)
    want = expected_adamw(P2, maximize, values, options, decoupled, right)
    assert got == pytest.approx(want, rel=1e-9, abs=1e-9)


@given(
    theta=st.lists(numbers, min_size=3, max_size=3),
    theta_0=st.lists(numbers, min_size=3, max_size=3),
    center=st.sampled_from([ORIGIN, REFERENCE]),
    lower=positive,
    width=positive,
)
def test_a_projection_ends_in_the_set_and_knows_its_distance(
    common, theta, theta_0, center, lower, width
):
    delta = [a - b for a, b in zip(theta, theta_0, strict=True)]
    dot = lambda a, b: math.fsum(x * y for x, y in zip(a, b, strict=True))  # noqa: E731
    sums = (0.0, dot(delta, delta), dot(theta, theta), dot(delta, theta))
    out = (ctypes.c_double * 2)()
    upper = lower + width
    arguments = map(ctypes.c_double, (lower, upper))
    common.project(center, *arguments, (ctypes.c_double * 4)(*sums), out)
    c, distance = out
    x = theta if center == ORIGIN else delta
    norm = math.sqrt(dot(x, x))
    if norm > 1e-100:
        assert c * norm == pytest.approx(min(max(norm, lower), upper), rel=1e-12)
    moved = [c * t - r for t, r in zip(theta, theta_0, strict=True)]
    after = moved if center == ORIGIN else [c * d for d in delta]
    assert distance == pytest.approx(math.sqrt(dot(after, after)), abs=1e-6)


@pytest.mark.parametrize(
    ("cached", "actual", "rounding", "is_stale"),
    [
        (1.0, 1.0, 0.0, False),
        (1.0, 1.000001, 0.0, False),
        (1.0, 1.001, 0.0, True),
        (1.0, 1.001, 0.01, False),
        (math.nan, 1.0, 0.0, True),
        (1.0, math.inf, 0.0, False),
        (1.0, math.nan, 0.0, False),
    ],
)
def test_a_norm_is_stale_beyond_rounding_unless_the_weights_are_not_finite(
    common, cached, actual, rounding, is_stale
):
    common.stale.restype = ctypes.c_bool
    assert common.stale(*map(ctypes.c_double, (cached, actual, rounding))) is is_stale
