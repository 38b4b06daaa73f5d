# SPDX-License-Identifier: Apache-2.0
"""Additive patterns that are learned on a surrogate: what Low-frequency and Narcissus share.

    stamped = clamp(x + pattern, 0, 1)          pattern (C, H, W), the same for every image

The surrogate is a clean model of the attacker. An attack keeps the tensor ``pattern``, bounded by
``limit`` in every value, as its learned state; ``pattern_state`` and ``load_pattern_state`` are its
``state_dict`` and ``load_state_dict``.
"""

import copy
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from d3fast.attacks.training import TrainConfig, train_backdoored
from d3fast.data.base import ImageData, on_floats
from d3fast.models import MODELS
from d3fast.runtime.seeding import generator as seeded
from d3fast.runtime.seeding import global_seed


class Patterned(Protocol):
    """Attack as ``pattern_state`` and ``load_pattern_state`` use it."""

    @property
    def limit(self) -> float:
        """Bound on every value of the pattern."""

    @property
    def _learned(self) -> dict[str, Tensor]:
        """The pattern by its name; empty before it is learned."""


def surrogate_model(
    model: nn.Module | None,
    data: ImageData,
    *,
    name: str,
    epochs: int,
    stream: str,
    seed: int,
    progress: bool,
) -> nn.Module:
    """Return a clean model in eval mode, without gradients, on the device of the data.

    Args:
        model: the model to copy; one is trained if ``None``.
        data: the training set, on its device; it is not changed.
        name: architecture to train, in ``MODELS``.
        epochs: epochs of that training.
        stream: names the random numbers of the attack.
        seed: draws the weights and the order of the batches.
        progress: show a progress bar.
    """
    if model is not None:
        surrogate = copy.deepcopy(model)
    else:
        # Another seed: the run's seed would give the model that measures the clean-model floor.
        own = int(torch.randint(2**62, (), generator=seeded(seed, stream)))
        with global_seed(own):
            surrogate = MODELS[name](len(data.classes), data.shape[0])
        config = TrainConfig(epochs=epochs)
        where = data.images.device
        train_backdoored(
            surrogate, data, None, seed=own, config=config, device=where, progress=progress
        )
    return surrogate.to(data.images.device).eval().requires_grad_(False)


@torch.enable_grad()
def pattern_gradient(model: nn.Module, images: Tensor, labels: Tensor, pattern: Tensor) -> Tensor:
    """Return the gradient of the mean cross-entropy of stamped images by the pattern, (C, H, W).

    Args:
        model: the surrogate.
        images: (N, C, H, W) floats in [0, 1].
        labels: (N,) int64 class indices.
        pattern: (C, H, W) float32.
    """
    pattern = pattern.detach().requires_grad_()
    loss = functional.cross_entropy(model((images + pattern).clamp(0, 1)), labels)
    return torch.autograd.grad(loss, pattern)[0]


def rms(values: Tensor) -> Tensor:
    """Return the root mean square, at least 1e-12: callers divide by it.

    Example:
        >>> rms(torch.tensor([3.0, -3.0]))
        tensor(3.)
    """
    return values.square().mean().sqrt().clamp_min(1e-12)


def add_pattern(images: Tensor, pattern: Tensor) -> Tensor:
    """Return stamped copies of images (..., C, H, W), floats in [0, 1] or uint8.

    Args:
        images: the images.
        pattern: (C, h, w) floats, resized bilinearly to images of another size.

    Raises:
        ValueError: the number of channels differs.

    Example:
        >>> add_pattern(torch.full((1, 1, 2), 0.5), torch.tensor([[[0.25, 1.0]]]))
        tensor([[[0.7500, 1.0000]]])
    """
    pattern = pattern.to(images.device)
    channels, size = images.shape[-3], images.shape[-2:]
    if channels != len(pattern):
        raise ValueError(
            f"the pattern was learned on images of {len(pattern)} channels, got {channels}"
        )
    if size != pattern.shape[-2:]:
        pattern = functional.interpolate(
            pattern[None], size, mode="bilinear", antialias=True
        ).squeeze(0)
    return on_floats(images, lambda floats: floats + pattern)


def pattern_state(attack: Patterned) -> dict[str, Tensor]:
    """Return ``pattern``, (C, H, W) float32; empty before it is learned."""
    return dict(attack._learned)


def load_pattern_state(attack: Patterned, state: Mapping[str, Tensor]) -> None:
    """Load the tensors that ``state_dict`` returned.

    Raises:
        ValueError: anything but one pattern within the limit; the attack is unchanged then.
    """
    if state:
        _check_pattern(attack, state)
    attack._learned.clear()
    attack._learned.update(state)


def _check_pattern(attack: Patterned, state: Mapping[str, Tensor]) -> None:
    if set(state) != {"pattern"}:
        raise ValueError(
            f"{type(attack).__name__} learns the tensor pattern, got {', '.join(state)}"
        )
    pattern = state["pattern"]
    if pattern.dtype != torch.float32 or pattern.ndim != 3 or pattern.numel() == 0:
        raise ValueError(
            "pattern must be (C, H, W) of float32, got shape "
            f"{tuple(pattern.shape)} of {pattern.dtype}"
        )
    if not bool((pattern.abs() <= attack.limit * (1 + 1e-6)).all()):  # NaN is not <= either
        raise ValueError(
            f"pattern must be within limit={attack.limit}, got {float(pattern.abs().max()):g}"
        )
