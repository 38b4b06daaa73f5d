"""Quick instances of all defences, and the small model and data that they are run on."""

import torch
from torch import nn

from d3fast import D3Config
from d3fast.audit.inversion import InversionOptions
from d3fast.defenses import (
    ANP,
    BTIDBF,
    D3,
    FST,
    FTSAM,
    IBAU,
    NAD,
    PAM,
    SAU,
    TSBD,
    FinePruning,
    FineTuning,
    NeuralCleanse,
)
from d3fast.defenses.bti_dbf import InversionByFeatures

INVERSION = InversionByFeatures(mask_steps=3, steps=3)

# A two-epoch instance of every defence, with thresholds at which it prunes or unlearns something.
SHORT = {
    "fine-tuning": FineTuning(epochs=2),
    "fine-pruning": FinePruning(epochs=2, max_acc_drop=1.0, step=0.2),
    "nad": NAD(epochs=2, teacher_epochs=1),
    "neural-cleanse": NeuralCleanse(
        epochs=2, threshold=0.0, inversion=InversionOptions(steps=20, batch_size=6)
    ),
    "anp": ANP(steps=4, max_acc_drop=1.0),
    "ft-sam": FTSAM(epochs=2),
    "i-bau": IBAU(rounds=2),
    "sau": SAU(epochs=2),
    "fst": FST(epochs=2),
    "tsbd": TSBD(epochs=2, unlearn_epochs=1),
    "bti-dbf": BTIDBF(epochs=2, inversion=INVERSION),
    "pam": PAM(epochs=2, inversion=INVERSION),
    "d3": D3(D3Config(epochs=2)),
}


def make_loader(seed=0):
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(12, 1, 8, 8, generator=draw)
    return [(images[i : i + 6], torch.arange(6) % 3) for i in (0, 6)]


def make_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(6, 3),
        )
