# SPDX-License-Identifier: Apache-2.0
"""The backdoor existence coefficient: how much of a backdoor's activations a repair left.

    rho = sum_l (S(D, A) - S(C, A)) / sum_l (1 - S(C, A))

A is the suspect, D the repaired model, C a model that was never poisoned, and S the similarity of
two models' activations on triggered images: the linear centred kernel alignment (CKA) over the
channels of layer l that the trigger changes most in A. 1: the channels answer the trigger as they
did in the suspect; 0: they answer it as those of a model that never saw it.
"""

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from d3fast.runtime.checks import check_number
from d3fast.training.loaders import class_scores
from d3fast.training.metrics import Trigger
from d3fast.training.modes import eval_mode

_BATCH = 1000
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Return the linear centred kernel alignment of two sets of activations, in [0, 1].

        ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F), columns centred

    Args:
        x: (N, a), activations of N samples.
        y: (N, b), activations of the same samples.

    Returns:
        1 where the sets agree up to rotation and scale, 0 where one of them is constant.

    Source:
        Kornblith, Norouzi, Lee, Hinton, *Similarity of Neural Network Representations Revisited*,
        ICML 2019, equation 3 with linear kernels.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0], [3.0, 1.0]])
        >>> round(linear_cka(x, -2 * x), 6), linear_cka(x, torch.ones(3, 1))
        (1.0, 0.0)
    """
    x, y = (a.double() - a.double().mean(dim=0) for a in (x, y))
    scale = torch.linalg.matrix_norm(x.T @ x) * torch.linalg.matrix_norm(y.T @ y)
    if scale == 0:
        return 0.0
    return float(torch.linalg.matrix_norm(y.T @ x) ** 2 / scale)


@torch.no_grad()
def _activations(model: nn.Module, images: Tensor) -> Mapping[str, Tensor]:
    """Return the outputs of every linear and convolution layer, means over positions: (N, C)."""
    batches: dict[str, list[Tensor]] = {}

    def record(name: str, layer: nn.Module, output: Tensor) -> None:
        channels = output.dim() - 1 if isinstance(layer, nn.Linear) else 1
        others = [d for d in range(1, output.dim()) if d != channels]
        batches.setdefault(name, []).append(output.mean(dim=others) if others else output)

    handles = [
        layer.register_forward_hook(lambda m, _, out, name=name: record(name, m, out))
        for name, layer in model.named_modules()
        if isinstance(layer, _LAYERS)
    ]
    try:
        with eval_mode(model):
            for batch in torch.split(images, _BATCH):
                class_scores(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in batches.items()}


def existence_coefficient(
    model: nn.Module,
    suspect: nn.Module,
    clean_model: nn.Module,
    images: Tensor,
    attack: Trigger,
    *,
    share: float = 0.1,
) -> float:
    """Return the backdoor existence coefficient of a repaired model.

    Args:
        model: the repaired model D.
        suspect: the model A that it was repaired from.
        clean_model: a model C of the same architecture that was never poisoned.
        images: (N, C, H, W) clean images of other classes than the target, floats in [0, 1].
        attack: any object with ``trigger(images)``.
        share: share of a layer's channels that counts as the backdoor's, in (0, 1]: those with the
            largest mean ``|a(trigger(x)) - a(x)|`` in the suspect; at least one.

    Returns:
        rho. Not clipped: a repair that is less like the suspect than the clean model is gives a
        negative number.

    Raises:
        ValueError: models whose layers differ by name or width; a share out of range; no image.

    Source:
        Zhu, Liang, Wu, *Breaking the False Sense of Security in Backdoor Defense through
        Re-Activation Attack*, NeurIPS 2024, arXiv 2405.16134. The paper averages the ratio over
        layers; a layer where the clean model is all but equal to the suspect would decide that
        mean, so numerator and denominator are summed here. The linear kernel, the average over
        positions and ``share`` are choices made here.

    Example:
        >>> from d3fast.attacks import BadNets
        >>> suspect, never = (nn.Sequential(nn.Flatten(), nn.Linear(64, 2)) for _ in range(2))
        >>> images, attack = torch.rand(20, 1, 8, 8), BadNets(target=0)
        >>> round(existence_coefficient(suspect, suspect, never, images, attack), 6)
        1.0
        >>> existence_coefficient(never, suspect, never, images, attack)
        0.0
    """
    check_number("share", share)
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share!r}")
    if not len(images):
        raise ValueError("images must hold one image or more, got none")
    where = images.device
    repaired, attacked, never = (copy.deepcopy(m).to(where) for m in (model, suspect, clean_model))
    with torch.no_grad():
        triggered = attack.trigger(images)
    plain = _activations(attacked, images)
    ours = _activations(attacked, triggered)
    shown = {
        "model": _activations(repaired, triggered),
        "clean_model": _activations(never, triggered),
    }
    for name, layers in shown.items():
        if {k: v.shape for k, v in layers.items()} != {k: v.shape for k, v in ours.items()}:
            raise ValueError(f"{name} must have the layers of the suspect, got others")
    kept = removed = 0.0
    for layer, own in ours.items():
        change = (own - plain[layer]).abs().mean(dim=0)
        top = change.topk(math.ceil(share * len(change))).indices
        floor = linear_cka(shown["clean_model"][layer][:, top], own[:, top])
        kept += linear_cka(shown["model"][layer][:, top], own[:, top]) - floor
        removed += 1 - floor
    return kept / removed if removed else 0.0
