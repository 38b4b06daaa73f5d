# SPDX-License-Identifier: Apache-2.0
"""Parameter lists: the totals that their papers and model zoos give, and their heads."""

from math import prod

import pytest

from benchmarks.shapes import resnet18, transformer_1b, vgg19_bn, vit_b16
from benchmarks.speed.workloads import workloads


@pytest.mark.parametrize(
    ("model", "parameters", "tensors", "head"),
    [
        (resnet18(), 11_689_512, 62, (1000, 512)),
        (vgg19_bn(), 143_678_248, 70, (1000, 4096)),
        (vit_b16(), 86_567_656, 152, (1000, 768)),
    ],
    ids=["ResNet-18", "VGG19-BN", "ViT-B/16"],
)
def test_lists_are_those_of_the_models(model, parameters, tensors, head):
    assert model.numel == parameters
    assert len(model.shapes) == tensors
    assert model.shapes[model.head] == head


def test_the_transformer_has_a_billion_parameters():
    assert 1e9 < transformer_1b().numel < 1.2e9


@pytest.mark.parametrize("gpu", [False, True])
def test_names_are_unique_and_groups_complete(gpu):
    chosen = workloads(gpu)
    assert len({w.name for w in chosen}) == len(chosen)
    totals = {w.name: w.tracked_numel + w.plain_numel for w in chosen}
    for model in (resnet18(), vgg19_bn(), vit_b16()):
        assert totals[f"{model.name}, head"] == totals[f"{model.name}, all"] == model.numel


def test_a_smoke_run_keeps_the_number_of_tensors():
    for workload in workloads(gpu=False):
        small = workload.shrunk(1000)
        assert (len(small.tracked), len(small.plain)) == (
            len(workload.tracked),
            len(workload.plain),
        )
        assert all(prod(shape) >= 1 for shape in (*small.tracked, *small.plain))
