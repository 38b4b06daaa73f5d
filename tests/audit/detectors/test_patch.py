"""Sizes of inverted triggers, compared as ratios."""

import math

import pytest
import torch
from torch import nn

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.patch import Patch
from d3fast.audit.detectors.scores import outlier_score
from d3fast.audit.inversion import Inversion


def context(norms, success=1.0):
    mask, pattern = torch.ones(1, 4, 4), torch.zeros(1, 4, 4)
    shares = success if isinstance(success, list) else [success] * len(norms)
    found = tuple(
        Inversion(target, mask, pattern, norm, share)
        for target, (norm, share) in enumerate(zip(norms, shares, strict=True))
    )
    images, labels = torch.rand(20, 1, 4, 4), torch.arange(20) % len(norms)
    return InspectionContext(nn.Flatten(), images, labels, len(norms), inversions=found)


def test_a_smaller_patch_is_a_larger_statistic():
    assert Patch()(context([1.0, math.e, math.e**2])) == pytest.approx([0, -1, -2])


def test_sizes_are_compared_as_ratios():
    norms = [4.0, 5.0, 6.0, 0.5, 4.5]
    wider = [9 * norm for norm in norms]
    assert outlier_score(Patch()(context(norms))) == (
        pytest.approx(outlier_score(Patch()(context(wider)))[0]),
        3,
    )


def test_a_patch_that_does_not_work_counts_as_the_whole_image():
    statistics = Patch()(context([4.0, 0.1, 5.0], success=[1.0, 0.5, 1.0]))
    assert statistics[1] == pytest.approx(-math.log(16))


def test_a_patch_of_nothing_has_a_finite_statistic():
    assert all(math.isfinite(s) for s in Patch()(context([0.0, 3.0, 4.0])))


def test_without_an_inversion_per_class_it_is_refused():
    images, labels = torch.rand(6, 1, 4, 4), torch.arange(6) % 3
    with pytest.raises(ValueError, match="detector patch needs 3 inversions, got 0"):
        Patch()(InspectionContext(nn.Flatten(), images, labels, 3))


@pytest.mark.parametrize("success", [-0.1, math.nan])
def test_a_share_out_of_range_is_refused(success):
    with pytest.raises(ValueError, match="success must be finite and >= 0"):
        Patch(success=success)
