"""Options of a step: fields by keyword, the centre as an enum, and what a group cannot take."""

import math

import numpy as np
import pytest

from d3fast import _C


def test_options_have_the_defaults_of_plain_sgd():
    o = _C.StepOptions()
    assert (o.lr.value, o.momentum, o.distance_weight, o.p) == (0, 0, 0, 2)
    assert (o.center, o.lower.value, o.upper.value) == (_C.Center.none, 0, math.inf)


def test_options_take_every_field_by_keyword():
    given = {"momentum": 0.5, "dampening": 0.25, "weight_decay": 2.0, "nesterov": True}
    given |= {"maximize": True, "distance_weight": 3.0, "p": 1, "relative": True}
    given |= {"center": _C.Center.reference}
    o = _C.StepOptions(lr=0.5, lower=1.0, upper=2.0, **given)
    assert {name: getattr(o, name) for name in given} == given
    assert (o.lr.value, o.lower.value, o.upper.value) == (0.5, 1, 2)


def test_an_unknown_option_is_refused_by_name():
    with pytest.raises(AttributeError, match="learning_rate"):
        _C.StepOptions(learning_rate=1.0)


def test_a_centre_is_no_number():
    with pytest.raises(TypeError):
        _C.StepOptions(center=1)


def test_a_scalar_on_the_device_is_an_address():
    o = _C.StepOptions(lr=_C.Scalar(device=64, is_double=True))
    assert (o.lr.device, o.lr.is_double, o.lr.value) == (64, True, 0)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"p": 3}, "p must be 1 or 2, got 3"),
        ({"distance_weight": 0.5}, "distance_weight must be 0 without a reference, got 0.5"),
        ({"center": _C.Center.origin}, "center must be none without a reference, got 1"),
        ({"momentum": 0.9}, "momentum must be 0 without momentum buffers, got 0.9"),
    ],
    ids=str,
)
def test_a_plain_group_refuses_what_needs_more(options, text):
    theta, grad = np.ones(2, np.float32), np.ones(2, np.float32)
    plan = _C.CpuPlan(
        dtypes=_C.DTypeNames(weight="float32", momentum="float32", reference="float32"),
        columns=_C.Columns(theta=[theta.ctypes.data], numel=[2]),
        reference_norms=[],
        joint_norm=False,
    )
    step = {"grads": [grad.ctypes.data], "verify": False, "executor": 1}
    with pytest.raises(ValueError, match=text):
        plan.step(options=_C.StepOptions(lr=0.5, **options), **step)
    assert theta.tolist() == [1, 1]
    plan.step(options=_C.StepOptions(lr=0.5), **step)
    assert theta.tolist() == [0.5, 0.5]
