# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from d3fast.hub import Request
from d3fast.hub.programs.input_form import InputForm, input_form

F32 = torch.float32


def form(shape, dtype=F32, **request):
    return input_form(shape, dtype, Request("m.onnx", **request))


@pytest.mark.parametrize(
    ("shape", "layout", "channels"),
    [
        ((None, 3, 8, 8), "nchw", 3),
        ((None, 8, 8, 3), "nhwc", 3),
        ((None, 8, 8), "nhw", 1),
        ((None, 64), "flat", 1),
        ((None, 192), "flat", 3),
    ],
)
def test_the_order_of_the_dimensions_is_that_of_the_shape(shape, layout, channels):
    found = form(shape)
    assert (found.layout, found.channels, found.size) == (layout, channels, (8, 8))
    given = found.given(torch.rand(2, channels, 8, 8))
    assert given.shape == (2, *shape[1:])


def test_bytes_are_given_as_0_to_255_without_rounding():
    found = form((None, 1, 2, 2), torch.uint8)
    assert found.given(torch.full((1, 1, 2, 2), 0.5)).unique().tolist() == [127.5]
    with pytest.raises(ValueError, match="no mean and std"):
        form((None, 1, 2, 2), torch.uint8, mean=(0.5,), std=(0.5,))


def test_free_sizes_are_those_of_the_request():
    assert form((None, None, None, None), channels=1, size=16) == InputForm(1, (16, 16))
    with pytest.raises(ValueError, match="give --size"):
        form((None, 3, None, None))
    with pytest.raises(ValueError, match="images of 8x8, got --size 16"):
        form((None, 3, 8, 8), size=16)


def test_a_fixed_batch_is_kept_up_to_a_limit():
    assert form((4, 3, 8, 8)).batch == 4
    with pytest.raises(ValueError, match="1000 images at a time"):
        form((1000, 3, 8, 8))


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((None, 12), torch.int64, "of int64"),
        ((None, 12), None, "of None"),
        (None, F32, "unknown"),
        ((None, 7), F32, "none of images"),
        ((None, 4, 8, 8), F32, "neither 1 nor 3 channels"),
        ((1, 2, 3, 4, 5), F32, "none of images"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        form(shape, dtype)


def test_the_notes_say_what_was_inferred():
    assert form((1, 8, 8, 3)).notes() == (
        "The program takes images of 3x8x8, channels last, 1 at a time.",
    )
