# SPDX-License-Identifier: Apache-2.0
r"""Training loop of the published experiments, written from the paper's formulas.

    loss = (lambda * mean_i max(0, CE_i - epsilon) - sum_s ||theta_s - theta_0||) / (lambda + 1)

Autograd goes through the distance, ``torch.optim.SGD`` steps, every tracked tensor is rescaled
through ``.data``. Images are converted one by one on the host, loss and accuracy are read after
every batch, and ACC, ASR and RA are measured after every epoch in one pass each over the test set.
Start, batches, schedule and number of epochs are those of ``detoxify``.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from d3fast.attacks import Attack
from d3fast.data import ImageData
from d3fast.detox import D3Config
from d3fast.optim import WARM_STARTS, param_groups
from d3fast.runtime.seeding import generator

TEST_BATCH = 256


class SampleBySample(Dataset):
    """Images converted to floats one by one, like a folder of pictures.

    Without decoding and augmentation, which favours this loop.
    """

    def __init__(self, data: ImageData, change: Callable[[Tensor], Tensor] | None = None) -> None:
        images = data.images if change is None else change(data.images)
        self.pictures = images.permute(0, 2, 3, 1).contiguous().cpu().numpy()  # (N, H, W, C)
        self.labels = data.labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = torch.from_numpy(self.pictures[index])
        return picture.permute(2, 0, 1).contiguous().float().div(255), self.labels[index]


@dataclass(frozen=True)
class Outcome:
    """Result of the repair.

    Attributes:
        model: the repaired copy.
        training: seconds spent in training epochs.
        evaluation: seconds spent in evaluations.
    """

    model: nn.Module
    training: float
    evaluation: float


def repair(
    model: nn.Module,
    clean: ImageData,
    test: ImageData,
    attack: Attack,
    config: D3Config,
    batch_size: int,
    device: torch.device,
) -> Outcome:
    """Repair a copy of a model.

    Args:
        model: the suspect.
        clean: the defender's samples.
        test: clean test images.
        attack: stamps the triggered test images.
        config: the options of ``detoxify``; sphere, p = 2, hinge per sample.
        batch_size: of the training.
        device: where to compute.
    """
    model = copy.deepcopy(model).to(device)
    tracked = param_groups(model, track=config.track)[0]["params"]
    references = [p.detach().clone() for p in tracked]
    _warm_start(tracked, references, config)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr, momentum=config.momentum)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    order = generator(config.seed, "repair order")
    loader = DataLoader(SampleBySample(clean), batch_size, shuffle=True, generator=order)
    others = test.subset((test.labels != attack.target).nonzero().flatten())
    triggered = SampleBySample(others, attack.trigger)
    passes = {
        "acc": DataLoader(SampleBySample(test), TEST_BATCH),
        "asr": DataLoader(_relabelled(triggered, attack.target), TEST_BATCH),
        "ra": DataLoader(triggered, TEST_BATCH),
    }
    training = evaluation = 0.0
    for _ in range(config.epochs):
        started = time.perf_counter()
        _train_epoch(model, loader, optimizer, tracked, references, config, device)
        scheduler.step()
        trained = time.perf_counter()
        for name in passes:
            accuracy(model, passes[name], device)
        training += trained - started
        evaluation += time.perf_counter() - trained
    return Outcome(model, training, evaluation)


@torch.no_grad()
def _warm_start(tracked: list[Tensor], references: list[Tensor], config: D3Config) -> None:
    source = generator(config.seed, "warm start")
    for p, theta_0 in zip(tracked, references, strict=True):
        p.copy_(WARM_STARTS[config.warm_start](theta_0, source))


def _relabelled(data: SampleBySample, label: int) -> SampleBySample:
    changed = copy.copy(data)
    changed.labels = [label] * len(data)
    return changed


def _train_epoch(
    model: nn.Module,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    tracked: list[Tensor],
    references: list[Tensor],
    config: D3Config,
    device: torch.device,
) -> tuple[float, float]:
    model.train()
    loss_sum, hits, samples = 0.0, 0, 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        logits = model(images)
        each = functional.cross_entropy(logits, labels, reduction="none")
        hinge = torch.relu(each - config.epsilon).mean()
        pairs = zip(tracked, references, strict=True)
        distance = sum(torch.norm(p - theta_0) for p, theta_0 in pairs)
        clean_weight, distance_weight = config.weights()
        loss = clean_weight * hinge - distance_weight * distance
        loss.backward()
        optimizer.step()
        for p, theta_0 in zip(tracked, references, strict=True):
            p.data = p.data * (theta_0.norm() / p.data.norm())
        loss_sum += loss.item() * len(labels)
        hits += (logits.argmax(dim=1) == labels).sum().item()
        samples += len(labels)
    return loss_sum / samples, hits / samples


@torch.no_grad()
def accuracy(model: nn.Module, loader: DataLoader, device: torch.device) -> float:
    """Return the accuracy on the samples of a loader."""
    model.eval()
    hits, loss_sum, samples = 0, 0.0, 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        loss_sum += functional.cross_entropy(logits, labels).item() * len(labels)
        hits += (logits.argmax(dim=1) == labels).sum().item()
        samples += len(labels)
    return hits / samples
