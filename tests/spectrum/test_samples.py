# SPDX-License-Identifier: Apache-2.0
"""Samples: weights of the batches, repeatable data, triggered samples."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from d3fast.attacks import BadNets
from d3fast.spectrum.samples import Difference, Samples, triggered_batches


def _batches(*sizes):
    return [(torch.rand(size, 1, 8, 8), torch.arange(size) % 3) for size in sizes]


def test_weights_are_shares_of_all_samples_and_negative_in_a_subtrahend():
    first, second = _batches(3, 1), _batches(2)
    assert [weight for weight, _, _ in Samples(first)] == [0.75, 0.25]
    weights = [weight for weight, _, _ in Samples(Difference(first, second))]
    assert weights == [0.75, 0.25, -1.0]


def test_empty_batches_are_skipped_and_floats_take_the_dtype():
    ((weight, inputs, labels),) = Samples(_batches(0, 2), dtype=torch.float64)
    assert weight == 1.0
    assert (inputs.dtype, labels.dtype) == (torch.float64, torch.int64)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ([], "data yields nothing"),
        (iter([]), "a list_iterator"),
        ([torch.rand(2)], "data"),
        (
            DataLoader(TensorDataset(torch.ones(4, 1), torch.zeros(4).long()), shuffle=True),
            "set shuffle=False",
        ),
    ],
    ids=["nothing", "iterator", "no pair", "shuffled"],
)
def test_unusable_data_is_rejected(data, error):
    with pytest.raises(ValueError, match=error):
        Samples(data)


def test_batches_that_change_between_passes_are_rejected():
    batches = _batches(2, 2)
    samples = Samples(batches)
    batches[1][0].zero_()
    with pytest.raises(ValueError, match="same batches in every pass, it did not"):
        list(samples)


def test_triggered_samples_are_those_that_asr_counts():
    labels = torch.cat(
        [batch[1] for batch in triggered_batches(_batches(6, 6), BadNets(target=2), 3)]
    )
    assert labels.tolist() == [2] * 8
    with pytest.raises(ValueError, match="no sample whose label an attack on 0 changes"):
        triggered_batches([(torch.rand(2, 1, 8, 8), torch.zeros(2).long())], BadNets(target=0), 3)
