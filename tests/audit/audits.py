"""A small audit without a hub: a linear model, random images of four classes."""

import torch
from torch import nn

from d3fast.audit.resolve import Audit
from d3fast.data import ImageData
from d3fast.detox import save_weights
from d3fast.hub import Classifier, ImageInput, Suspect

CLASSES = tuple("abcd")
SHA = 64 * "e"


def save(model, folder, config=None):
    """A writer of one file."""
    save_weights(model, folder / "repaired.safetensors", config)
    return folder / "repaired.safetensors"


def small_audit(count=40, seed=0):
    """An audit of a linear model."""
    torch.manual_seed(seed)
    inner = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    suspect = Suspect(
        model=Classifier(inner).eval(),
        name="linear",
        spec="mine:make",
        family="Sequential",
        input=ImageInput(1, (4, 4)),
        classes=CLASSES,
        files=(),
        sha256=SHA,
        notes=(),
        save=save,
    )
    data = ImageData(torch.rand(count, 1, 4, 4), torch.arange(count) % 4, CLASSES)
    return Audit(suspect, data, True, (), seed)
