"""A trigger is checked against the samples: target, shape, finite values."""

import math

import pytest
import torch

from d3fast.audit.trigger import check_trigger
from d3fast.data import ImageData

SAMPLES = ImageData(torch.rand(6, 1, 4, 4), torch.arange(6) % 3, tuple("abc"))


class Call:
    """A trigger that is a function."""

    def __init__(self, function, target=0):
        self.trigger, self.target = function, target


def test_a_trigger_that_fits_is_applied_to_one_batch():
    shapes = []
    check_trigger(Call(lambda images: shapes.append(images.shape) or images), SAMPLES)
    assert shapes == [(6, 1, 4, 4)]


@pytest.mark.parametrize("target", [-1, 3, 999])
def test_a_target_that_is_no_class_is_refused(target):
    with pytest.raises(ValueError, match=rf"target must be in 0\.\.2 .*got {target}"):
        check_trigger(Call(lambda images: images, target), SAMPLES)


@pytest.mark.parametrize("error", [ValueError, RuntimeError, IndexError, TypeError])
def test_a_trigger_that_raises_is_one_line_with_the_shape(error):
    def fails(images):
        raise error("size 300\nis too large")

    with pytest.raises(ValueError, match=r"shape \(1, 4, 4\): size 300 is too large$"):
        check_trigger(Call(fails), SAMPLES)


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"makes \(1, 4, 3\) of images of shape \(1, 4, 4\)"):
        check_trigger(Call(lambda images: images[..., :3]), SAMPLES)


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="NaN or inf"):
        check_trigger(Call(lambda images: images * math.nan), SAMPLES)
