"""The model that hostile weights are loaded into, and good files for it."""

import io
import warnings
from typing import Any

import torch
from torch import nn


def net(seed: int = 0) -> nn.Module:
    """The model that every file is loaded into."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


def state(**changes: Any) -> dict[str, Any]:
    """Weights that fit, some of them replaced."""
    return {**net(1).state_dict(), **{n.replace("_", ".", 1): v for n, v in changes.items()}}


def torch_file(held: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(held, buffer, **options)
    return buffer.getvalue()
