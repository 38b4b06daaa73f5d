# SPDX-License-Identifier: Apache-2.0
"""Differential waves: sine waves that move the suspect toward a class, but not its own repairs.

::

    s_t = max over waves w of  mean p_f(t | clip(x + w)) - mean p_g(t | clip(x + w))

over clean x of other classes, for the suspect f and its D3 repairs g, over which the mean goes too;
w is a sine or cosine wave of up to ``highest`` periods along each side of the image, of one of a
few amplitudes. A clean-label attack such as SIG relabels nothing, so that no class becomes an
outlier for the suspect alone: a wave of the attacker's amplitude moves any model toward some class.
The difference to the repairs leaves what only the suspect has learned; each repair has random
directions of its own, which the mean reduces. No gradients are needed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from d3fast.audit.detectors.context import InspectionContext
from d3fast.audit.detectors.differential import repairs_of
from d3fast.runtime.checks import check_integer, check_number

_BATCH = 256


@dataclass(frozen=True)
class DifferentialWave:
    """The difference between suspect and repairs under the sine wave that makes it large.

    All waves are tried on ``first`` images; those under which the suspect answers a class most
    often are measured on ``samples`` images, with the repairs. The cost is ``repairs`` repairs of
    ``epochs`` epochs, with three sizes about 14,000 images forward, and ``samples`` images forward
    for each kept wave and model.

    Args:
        sizes: root mean squares of the waves, in units of the range of the images; an amplitude of
            40/255, that of SIG in the literature, has 0.11.
        highest: most periods along a side of the image.
        first: images that every wave is tried on.
        kept: waves per class that are measured.
        samples: images that they are measured on.
        repairs: repairs from different seeds.
        epochs: of each repair, over all clean samples.

    Raises:
        ValueError: a number out of range; a model whose head cannot be found.

    Source:
        The basis of waves: Yin et al., A Fourier perspective on model robustness in computer
        vision, NeurIPS 2019. The difference to a repair, that of ``DifferentialShift``: chosen
        here.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
        >>> context = InspectionContext(model, torch.rand(9, 1, 2, 2), torch.arange(9) % 3, 3)
        >>> len(DifferentialWave(epochs=1)(context))
        3
    """

    sizes: tuple[float, ...] = (0.1, 0.2, 0.4)
    highest: int = 8
    first: int = 16
    kept: int = 8
    samples: int = 200
    repairs: int = 2
    epochs: int = 15

    name = "wave"
    title = "Effect of a sine wave on the suspect alone, toward the class"
    spread = 0.1  # of a probability; classes of clean models often differ by less

    def __post_init__(self) -> None:
        for size in self.sizes:
            check_number("sizes", size)
        check_integer("the number of sizes", len(self.sizes), 1)
        for name in ("highest", "first", "kept", "samples", "repairs", "epochs"):
            check_integer(name, getattr(self, name), 1)

    def __call__(self, context: InspectionContext) -> Sequence[float]:
        """Return one statistic per class; see ``Detector``."""
        repairs = repairs_of(context, self.repairs, self.epochs)
        height, width = context.images.shape[2:]
        waves = unit_waves(height, width, self.highest).to(context.images)
        waves = torch.cat([size * waves for size in self.sizes])
        order = torch.randperm(len(context.images), generator=context.draws("waves"))
        look, measured = order[: self.first], order[: self.samples]
        searched = list(context.searched)
        found = _answers(context.scores, context, look, waves)[:, searched]
        best = found.topk(min(self.kept, len(waves)), dim=0).indices  # (kept, searched classes)
        tried = sorted(set(best.flatten().tolist()))
        models: list[Callable[[Tensor], Tensor]] = [context.scores, *repairs]
        own, *theirs = (_answers(model, context, measured, waves[tried]) for model in models)
        # A wave that was kept for one class counts for all.
        return (own - torch.stack(theirs).mean(dim=0))[:, searched].amax(dim=0).tolist()


def unit_waves(height: int, width: int, highest: int) -> Tensor:
    """Return sine and cosine waves with a root mean square of 1, (K, 1, height, width).

    One of each for every pair of periods (down, across) up to ``highest`` and to half of the
    pixels, without the constant; of a wave and its negative there is one.

    Args:
        height: of the images, in pixels.
        width: likewise.
        highest: most periods along a side.

    Example:
        >>> unit_waves(8, 8, 1).shape  # (0, 1), (1, -1), (1, 0), (1, 1)
        torch.Size([8, 1, 8, 8])
    """
    down = torch.arange(height)[:, None] / height
    across = torch.arange(width)[None, :] / width
    rows, columns = min(highest, height // 2), min(highest, width // 2)
    found = []
    for row in range(rows + 1):
        for column in range(-columns, columns + 1):
            # Of (row, column) and (-row, -column), and of half a period per pixel, one each.
            if column <= 0 and (row == 0 or 2 * column == -width):
                continue
            if 2 * row == height and column < 0:
                continue
            angle = 2 * math.pi * (row * down + column * across)
            found += [angle.sin(), angle.cos()]
    waves = torch.stack(found)[:, None]
    sizes = waves.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    kept = sizes.flatten() > 1e-3  # a sine of half as many periods as pixels is 0
    return waves[kept] / sizes[kept]


@torch.no_grad()
def _answers(
    model: Callable[[Tensor], Tensor], context: InspectionContext, picks: Tensor, waves: Tensor
) -> Tensor:
    """Return the mean probability (K, classes) of each class on images of other classes.

    Args:
        model: the suspect or the repair.
        context: images and labels.
        picks: positions (N,) of images.
        waves: (K, 1, H, W), each added to all of them.
    """
    images = context.images[picks.to(waves.device)]
    own = functional.one_hot(context.labels[picks], context.classes).bool()  # (N, classes)
    parts = []
    for group in torch.split(waves, max(1, _BATCH // len(images))):
        moved = (images[None] + group[:, None]).clamp(0, 1).flatten(0, 1)
        shares = [model(some).float().softmax(dim=1).cpu() for some in torch.split(moved, _BATCH)]
        parts.append(torch.cat(shares).view(len(group), len(images), -1))
    total = torch.cat(parts).masked_fill(own, 0.0).sum(dim=1)
    return total / (~own).sum(dim=0).clamp(min=1)
