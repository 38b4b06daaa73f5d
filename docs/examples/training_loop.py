# SPDX-License-Identifier: Apache-2.0
"""Use D3FusedSGD in a training loop of your own: only the optimizer and the loss are replaced."""

# %% A classifier that is already trained, the suspect, and clean data.
import torch
from torch import nn

import d3fast

torch.manual_seed(0)
splits = d3fast.data.load("digits", seed=0, clean=1000)
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
adam = torch.optim.Adam(model.parameters(), lr=1e-2)
batches = splits.clean.batches(64, torch.Generator().manual_seed(0))
for _ in range(20):
    for images, labels in batches:
        adam.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        adam.step()

# %% The swap: torch.optim.SGD becomes D3FusedSGD, the cross-entropy becomes CleanLoss.
opt = d3fast.D3FusedSGD(d3fast.param_groups(model, track="head"), lr=0.05, momentum=0.9)
opt.warm_start("random", generator=torch.Generator().manual_seed(0))
loss = d3fast.CleanLoss(epsilon=0.1, weight=10.0)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=20)

# %% The loop stays as it was.
for epoch in range(20):
    for images, labels in batches:
        opt.zero_grad()
        loss(model(images), labels).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        opt.step()
    schedule.step()
    if epoch % 5 == 4:
        with torch.no_grad():
            answers = [(model(x).argmax(1) == y).float() for x, y in splits.test.batches(256)]
        distance = float(opt.total_distance())
        accuracy = float(torch.cat(answers).mean())
        print(f"epoch {epoch + 1:2}  test accuracy {accuracy:.1%}  distance {distance:.3f}")
