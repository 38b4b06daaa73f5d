# SPDX-License-Identifier: Apache-2.0
r"""Singular values of weight matrices, and the numbers that describe them.

    p_i   = sigma_i^2 / sum_j sigma_j^2
    share = p_1
    rank  = exp(-sum_i p_i log p_i)

A weight of more than two dimensions counts as the matrix (outputs, everything else). ``rank`` is
the effective rank of Roy and Vetterli (EUSIPCO 2007) with squared singular values, whose rounding
errors in float32 do not matter: 1 for a matrix of rank one, min(shape) for equal singular values.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Spectrum:
    """Description of the singular values of one matrix.

    Attributes:
        norm: Frobenius norm.
        top: largest singular value.
        share: of the largest singular value in the squared norm; 0 for a matrix of zeros.
        rank: effective rank; 0 for a matrix of zeros.
    """

    norm: float
    top: float
    share: float
    rank: float


@dataclass(frozen=True)
class LayerSpectrum:
    """Spectrum of the weight matrix of one layer.

    Attributes:
        name: of the weight.
        outputs: rows of the matrix.
        inputs: its columns: inputs, times the size of a kernel.
        spectrum: of the matrix.
    """

    name: str
    outputs: int
    inputs: int
    spectrum: Spectrum

    def as_dict(self) -> dict[str, Any]:
        """Return all numbers in one flat dict."""
        fields = asdict(self)
        numbers = fields.pop("spectrum")
        return {**fields, **numbers}


def is_matrix(tensor: Tensor) -> bool:
    """Return whether a tensor is a weight matrix with two or more rows and columns."""
    floats = tensor.is_floating_point() and tensor.ndim >= 2
    return floats and tensor.shape[0] > 1 and tensor[0].numel() > 1


@torch.no_grad()
def spectrum_of(weight: Tensor) -> Spectrum:
    """Compute the spectrum of a weight.

    The eigenvalues of the smaller Gram matrix are the squared singular values: a matrix (m, n)
    costs min(m, n)^2 (m + n) operations instead of a singular value decomposition.

    Args:
        weight: two or more dimensions; the first one counts the rows. NaN and inf are not allowed.

    Example:
        >>> found = spectrum_of(torch.diag(torch.tensor([4.0, 3.0])))
        >>> found.norm, found.top, round(found.share, 2), round(found.rank, 2)
        (5.0, 4.0, 0.64, 1.92)
    """
    matrix = weight.detach().flatten(1).float()
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    squares = torch.linalg.eigvalsh(matrix @ matrix.T).clamp(min=0).double()
    total = float(squares.sum())
    if total == 0:
        return Spectrum(0.0, 0.0, 0.0, 0.0)
    shares = squares / total
    entropy = -torch.special.xlogy(shares, shares).sum()
    return Spectrum(
        norm=total**0.5,
        top=float(squares[-1]) ** 0.5,
        share=float(shares[-1]),
        rank=float(entropy.exp()),
    )


def layer_spectra(model: nn.Module) -> tuple[LayerSpectrum, ...]:
    """Compute the spectrum of every weight matrix of a model, in the model's order.

    Embeddings, whose rows are tokens, are left out: they are no maps from inputs to outputs.

    Example:
        >>> [layer.name for layer in layer_spectra(nn.Sequential(nn.Linear(3, 2), nn.ReLU()))]
        ['0.weight']
    """
    return tuple(_spectra(model))


def _spectra(model: nn.Module) -> Iterator[LayerSpectrum]:
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    for name, weight in model.named_parameters():
        if id(weight) not in tables and is_matrix(weight):
            outputs, inputs = weight.flatten(1).shape
            yield LayerSpectrum(name, outputs, inputs, spectrum_of(weight))
