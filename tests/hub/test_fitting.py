# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch import nn

from d3fast.hub.fitting import built_on_meta, other_sizes, shapes_of, sizes_in_file


def build(classes, channels):
    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.Flatten(), nn.Linear(8, classes))


@pytest.mark.parametrize("sizes", [(1000, 3), (5, 1), (5, 3), (1000, 4)])
def test_classes_and_channels_are_those_of_the_file(tmp_path, sizes):
    torch.save({"model": build(*sizes).state_dict()}, tmp_path / "w.pt")
    assert sizes_in_file(build, tmp_path / "w.pt", 1000, 3) == sizes


def test_names_of_another_architecture_are_refused(tmp_path):
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match="does not fit the model"):
        sizes_in_file(build, tmp_path / "w.pt", 1000, 3)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"0.weight": (16, 3, 3, 3)}, "'0.weight' has shape"),
        ({"2.weight": (5, 9)}, "'2.weight' has shape"),
        ({"2.weight": (5, 8), "2.bias": (6,)}, "several sizes"),
    ],
)
def test_shapes_that_no_number_of_classes_explains_are_refused(changes, says):
    own = shapes_of(build(1000, 3))
    with pytest.raises(LookupError, match=says):
        other_sizes(own, {**own, **changes}, 1000, 3)


def test_the_architecture_is_built_without_memory_and_warnings():
    def warns(classes, channels):
        import warnings

        warnings.warn("old", stacklevel=1)
        return nn.Linear(10**6, 10**6)

    assert built_on_meta(warns, 1, 1).weight.is_meta
