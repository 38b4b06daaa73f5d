"""Matrices that are written down, and models small enough that their Hessians can be."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, hessian, jacrev
from torch.nn.functional import cross_entropy

from d3fast.runtime.seeding import generator


class Dense:
    """A symmetric matrix that counts its products."""

    def __init__(self, matrix):
        self.matrix, self.products = matrix, 0
        self.size, self.dtype, self.device = len(matrix), matrix.dtype, matrix.device

    def __matmul__(self, vector):
        self.products += 1
        return self.matrix @ vector


def with_eigenvalues(values, dtype=torch.float64):
    """A dense matrix with the given spectrum in a random basis."""
    values = torch.as_tensor(values, dtype=torch.float64)
    draws = generator(0, "basis of a matrix")
    basis = torch.linalg.qr(torch.randn(len(values), len(values), generator=draws).double()).Q
    return Dense(((basis * values) @ basis.T).to(dtype))


def dense_hessian(model, data, names=None, loss=cross_entropy):
    """The Hessian of the mean loss over all samples, by autodiff, (P, P)."""
    inputs, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    params = {k: v.detach() for k, v in model.named_parameters() if names is None or k in names}

    def risk(weights):
        return loss(functional_call(model, weights, (inputs,)), labels)

    blocks = hessian(risk)(params)
    rows = [
        torch.cat([blocks[a][b].reshape(params[a].numel(), -1) for b in params], dim=1)
        for a in params
    ]
    return torch.cat(rows)


def dense_gauss_newton(model, data):
    """J^T (d^2 CE / df^2) J / N, (P, P)."""
    inputs, labels = (torch.cat(parts) for parts in zip(*data, strict=True))
    params = {k: v.detach() for k, v in model.named_parameters()}
    per_param = jacrev(lambda weights: functional_call(model, weights, (inputs,)))(params)
    jacobian = torch.cat([per_param[name].flatten(2) for name in params], dim=2)
    chances = model(inputs).softmax(dim=1).detach()
    inner = torch.diag_embed(chances) - chances[:, :, None] * chances[:, None, :]
    return torch.einsum("nap,nab,nbq->pq", jacobian, inner, jacobian) / len(labels)


@pytest.fixture
def net():
    """Convolution, batch norm with statistics of its own, tanh, dropout; double, in train mode."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(48, 3),
    ).double()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    return model


@pytest.fixture
def batches():
    """Batches of 5, 5 and 2 samples for ``net``."""
    draws = generator(0, "samples of a spectrum")
    inputs = torch.randn(12, 1, 4, 4, generator=draws).double()
    return list(zip(inputs.split(5), (torch.arange(12) % 3).split(5), strict=True))
