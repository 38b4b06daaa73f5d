"""A classifier written by hand, with or without a planted class, and images that it gets right."""

import torch
from torch import nn

STRIPES, SIDE = 6, 6  # classes and pixels of the stripes
GAINS = (3.5, 4.4, 4.2, 3.7, 4.0, 3.9)  # no two classes alike


def stripes(planted=None):
    """Adds up row k for class k; a planted class also answers to the pixel in the corner."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, STRIPES))
    with torch.no_grad():
        weight = torch.zeros(STRIPES, SIDE, SIDE)
        for k in range(STRIPES):
            weight[k, k, : SIDE - 1] = GAINS[k]
        if planted is not None:
            weight[planted, -1, -1] = 26.0
        model[1].weight.copy_(weight.flatten(1))
        model[1].bias.zero_()
    return model


def stripe_batches(seed=0, count=120, batch=32):
    """Images of class k have a bright row k; the last column is dark."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % STRIPES
    images = 0.1 * torch.rand(count, 1, SIDE, SIDE, generator=draw)
    bright = 0.5 + 0.5 * torch.rand(count, SIDE, generator=draw)
    images[torch.arange(count), 0, labels] = bright
    images[..., -1] = 0.0
    return list(zip(images.split(batch), labels.split(batch), strict=True))
