"""The AdamW kernels against the float64 reference backend, over shapes, strides and options."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d3fast import D3FusedAdamW
from tests.optim.backends.test_native import CONSTRAINTS, LAYOUTS, TENSORS, Example, agrees

follows = functools.partial(agrees, optimizer=D3FusedAdamW)


@st.composite
def option_sets(draw):
    return {
        "lr": draw(st.sampled_from([0.001, 0.01])),
        "betas": draw(st.sampled_from([(0.9, 0.999), (0.5, 0.9), (0.0, 0.99)])),
        "eps": draw(st.sampled_from([1e-8, 1e-3])),
        "weight_decay": draw(st.sampled_from([0.0, 0.01])),
        "decoupled_push": draw(st.booleans()),
        "maximize": draw(st.booleans()),
        "distance_weight": draw(st.sampled_from([0.0, 0.5, 2.0])),
        "distance_p": draw(st.sampled_from([1.0, 2.0])),
        "scope": draw(st.sampled_from(["tensor", "group"])),
        "reference": draw(st.sampled_from(["given", "far"])),
        **draw(st.sampled_from(CONSTRAINTS)),
    }


GROUPS = st.lists(
    st.tuples(option_sets(), st.lists(TENSORS, min_size=1, max_size=4)), min_size=1, max_size=3
)


@settings(max_examples=120)
@given(groups=GROUPS, seed=st.integers(0, 99))
def test_float32_follows_the_float64_reference_for_20_steps(relative_error, groups, seed):
    follows(groups, seed, relative_error, torch.float32, 1e-5)


@settings(max_examples=8)
@given(options=option_sets(), layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 9))
@pytest.mark.parametrize("shapes", [[(32767,), (32769,), (182, 181)], [(380, 370), (3,)]])
def test_tensors_cut_into_chunks_follow_the_float64_reference(
    relative_error, shapes, options, layout, seed
):
    group = [Example(shape, layout, "contiguous") for shape in shapes]
    follows([(options, group)], seed, relative_error, torch.float32, 1e-5)


@settings(max_examples=60)
@given(groups=GROUPS, seed=st.integers(0, 99))
def test_float64_kernels_give_the_reference_to_rounding(relative_error, groups, seed):
    follows(groups, seed, relative_error, torch.float64, 1e-13)
