# SPDX-License-Identifier: Apache-2.0
"""Warm starts: initial positions of the tracked weights before the first step.

Each is a function ``(reference, generator) -> tensor`` of the reference's shape, dtype and
device; the optimizer copies the result into the parameter. To add one, add a function and a
row to ``WARM_STARTS``.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from d3fast.optim.backends.dtensor import check_equal_draws, is_dtensor, placed


def _drawn_like(reference: Tensor, generator: torch.Generator | None, kind: str) -> Tensor:
    # A CPU generator serves every device: the same seed gives the same weights everywhere.
    device = generator.device if generator is not None else reference.device
    draw = torch.rand if kind == "uniform" else torch.randn
    dtype = torch.promote_types(reference.dtype, torch.float32)
    drawn = draw(reference.shape, generator=generator, device=device, dtype=dtype)
    if is_dtensor(reference):
        # Every rank draws the full tensor and keeps its part: sharding changes no number.
        check_equal_draws(drawn, reference)
        return placed(drawn, reference, "warm start")
    return drawn.to(reference.device)


def near(reference: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return theta_0."""
    return reference


def middle(reference: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return zeros, halfway between theta_0 and -theta_0."""
    return torch.zeros_like(reference)


def far(reference: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return -theta_0, the farthest point of the sphere through theta_0."""
    return -reference


def noise(reference: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return theta_0 + N(0, std(theta_0)), with the standard deviation over the tensor."""
    drawn = _drawn_like(reference, generator, "normal")
    spread = reference.to(drawn.dtype).std(correction=0) if reference.numel() else 0.0
    return reference + spread * drawn


def random(reference: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return U(-1/2, 1/2), rescaled to the norm of theta_0."""
    drawn = _drawn_like(reference, generator, "uniform") - 0.5
    norm = torch.linalg.vector_norm(drawn)
    target = torch.linalg.vector_norm(reference.to(drawn.dtype))
    return drawn * (target / torch.where(norm > 0, norm, torch.ones_like(norm)))


WARM_STARTS: Mapping[str, Callable[[Tensor, torch.Generator | None], Tensor]] = MappingProxyType(
    {f.__name__: f for f in (near, middle, far, noise, random)}
)
