# SPDX-License-Identifier: Apache-2.0
"""Measure the curvature of clean and backdoor loss before and after a repair."""

# %% A backdoored classifier and its repair.
import torch
from torch import nn

import d3fast
from d3fast.attacks import TrainConfig, recipe, train_backdoored
from d3fast.detox import repair_samples
from d3fast.spectrum import distance_profile, loss_path, top_eigenpairs, trace, triggered_batches

torch.manual_seed(0)
splits = d3fast.data.load("digits", seed=0, clean=260)
attack = recipe("badnets", "digits")
suspect = d3fast.models.make_model("preact_resnet_tiny", num_classes=10, in_channels=1)
train_backdoored(suspect, splits.train, attack, config=TrainConfig(epochs=8), progress=False)
repaired = d3fast.detoxify(
    suspect, repair_samples(splits.clean).loader, d3fast.D3Config(epochs=10), progress=False
).model

# %% Eigenvalues and trace of the Hessian of the head, with their errors.
loss = nn.CrossEntropyLoss()
clean = list(splits.test.subset(torch.arange(100)).batches(50))
backdoor = triggered_batches(clean, attack, classes=10)
for name, model in (("suspect", suspect), ("repaired", repaired)):
    for title, data in (("clean loss", clean), ("backdoor loss", backdoor)):
        pairs = top_eigenpairs(model, loss, data, k=2, params="head")
        estimate = trace(model, loss, data, params="head")
        print(
            f"{name:8} {title:13} largest eigenvalue {pairs.values[0]:8.3f}"
            f"  trace {estimate.value:8.2f} ± {estimate.standard_error:.2f}"
        )

# %% The loss on the straight line between both models, and how far each layer moved.
path = loss_path(suspect, repaired, loss, clean)
print(f"barrier of the clean loss: {path.barrier:.2f} nats")
for layer in distance_profile(suspect, repaired, track="head"):
    print(f"{layer.name}: moved by {layer.relative:.2f} of its norm")
