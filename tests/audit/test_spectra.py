"""Singular values of weight matrices, against a singular value decomposition."""

import pytest
import torch
from torch import nn

from d3fast.audit.spectra import is_matrix, layer_spectra, spectrum_of


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (4, 3, 2, 2)])
def test_it_is_that_of_the_decomposition(shape):
    weight = drawn(*shape)
    values = torch.linalg.svdvals(weight.flatten(1).double())
    shares = values**2 / (values**2).sum()
    found = spectrum_of(weight)
    assert found.norm == pytest.approx(float(weight.norm()), rel=1e-5)
    assert found.top == pytest.approx(float(values[0]), rel=1e-5)
    assert found.share == pytest.approx(float(shares[0]), rel=1e-5)
    assert found.rank == pytest.approx(float(torch.exp(-(shares * shares.log()).sum())), rel=1e-4)


@pytest.mark.parametrize("rank", [1, 4])
def test_the_effective_rank_is_the_rank_where_singular_values_are_equal(rank):
    rows, columns = (torch.linalg.qr(drawn(n, rank)).Q for n in (300, 200))
    found = spectrum_of(rows @ columns.T)
    assert found.rank == pytest.approx(rank, rel=0.01)
    assert found.share == pytest.approx(1 / rank, rel=0.01)


def test_a_matrix_of_zeros_has_no_rank():
    found = spectrum_of(torch.zeros(3, 4))
    assert (found.norm, found.top, found.share, found.rank) == (0, 0, 0, 0)


def test_vectors_integers_and_single_rows_are_no_matrices():
    assert is_matrix(torch.zeros(2, 2))
    assert is_matrix(torch.zeros(8, 3, 1, 1))
    for other in (torch.zeros(4), torch.zeros(1, 4), torch.zeros(4, 1), torch.zeros(2, 2).long()):
        assert not is_matrix(other)


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.fc = nn.Embedding(50, 4), nn.Linear(4, 3)
        self.conv = nn.Conv2d(3, 2, 3)


def test_layers_are_named_and_embeddings_left_out():
    found = layer_spectra(Words())
    assert [(layer.name, layer.outputs, layer.inputs) for layer in found] == [
        ("fc.weight", 3, 4),
        ("conv.weight", 2, 27),
    ]
    assert found[0].as_dict() == {
        "name": "fc.weight",
        "outputs": 3,
        "inputs": 4,
        **vars(found[0].spectrum),
    }
