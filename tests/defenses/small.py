"""A small network with batch norm and two batches for it, for loops written by hand."""

import torch
from torch import nn


def small_batches(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(8, 1, 2, 2, generator=draw), torch.randint(0, 3, (8,), generator=draw))
        for _ in range(2)
    ]


def small_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
