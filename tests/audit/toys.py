"""Classifiers written by hand, with or without a shortcut, and samples that they get right."""

import torch
from torch import nn

from d3fast.data import ImageData

CLASSES = tuple("abcdefghij")
SHORTCUT = 3
STRIPES, SIDE = 6, 6  # classes and pixels of the stripes
GAINS = (3.5, 4.4, 4.2, 3.7, 4.0, 3.9)  # no two classes alike


class Templates(nn.Module):
    """Score of a class: the product of its template with the image; a white corner wins for one."""

    def __init__(self, shortcut: bool):
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        templates = torch.randn(10, 64, generator=draws).sign()
        templates.view(10, 8, 8)[:, :2, :2] = 0  # the corner says nothing of the class
        self.head = nn.Linear(64, 10)
        self.shortcut = shortcut
        with torch.no_grad():
            self.head.weight.copy_(templates)
            self.head.bias.copy_(-0.5 * templates.sum(dim=1))

    def forward(self, images):
        scores = self.head(images.flatten(1))
        if self.shortcut:
            corner = (images[:, 0, :2, :2].mean(dim=(1, 2)) - 0.3).relu()
            scores = scores + 400 * corner[:, None] * nn.functional.one_hot(
                torch.tensor(SHORTCUT, device=images.device), 10
            )
        return scores


def samples(count=60):
    """Images near the templates, a dark corner in all of them."""
    draws = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % 10
    templates = Templates(False).head.weight.detach()[labels].view(count, 1, 8, 8)
    images = 0.5 + 0.2 * templates + 0.05 * torch.randn(count, 1, 8, 8, generator=draws)
    images[:, :, :2, :2] = 0.2
    return ImageData(images.clamp(0, 1), labels, CLASSES)


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
