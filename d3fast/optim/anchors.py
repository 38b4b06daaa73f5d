# SPDX-License-Identifier: Apache-2.0
"""Reference copies theta_0: where they come from and how they lie in memory."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.backends.dtensor import placed


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one shape lie alike in memory; sizes of 1 have no stride."""
    return a.stride() == b.stride() or all(
        n == 1 or x == y for n, x, y in zip(a.shape, a.stride(), b.stride(), strict=True)
    )


def is_deferred(tensor: Tensor) -> bool:
    """Return whether the memory does not hold the values: the negative bit is set, or a ZeroTensor.

    Autograd makes both for complex numbers: the gradient of an imaginary part may be a view of
    the opposite values, and one that is known to be zero may have no memory at all.
    """
    return tensor.is_neg() or tensor._is_zerotensor()


def is_dense(tensor: Tensor) -> bool:
    """Return whether the values fill one stretch of memory without gaps or overlaps."""
    if is_deferred(tensor):
        return False
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def match_layout(tensor: Tensor, param: Tensor) -> Tensor:
    """Return the values in memory with the strides of ``param`` (same shape).

    They are copied only where the strides differ or the memory does not hold them.
    """
    if same_layout(tensor, param) and not is_deferred(tensor):
        return tensor
    return torch.empty_like(param, dtype=tensor.dtype, device=tensor.device).copy_(tensor)


def on_host(tensor: Tensor) -> Tensor:
    """The tensor in memory of the host; one from a GPU in pinned memory, so that copying it back
    does not make the host wait.
    """
    if not tensor.is_cuda:
        return tensor.cpu()
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor)


def resolve_references(
    given: Sequence[Tensor] | Mapping[str, Tensor] | None,
    params: Sequence[Tensor],
    names: Sequence[str] | None,
    dtype: torch.dtype | None,
) -> list[Tensor | None]:
    """Return a copy of theta_0 per parameter, laid out like it; ``None`` for integer parameters.

    Args:
        given: one tensor per parameter, or a mapping from parameter names; the parameters
            themselves if ``None``.
        params: the group's parameters.
        names: their names, needed for a mapping.
        dtype: dtype of the copies; each parameter's own if ``None``.

    Raises:
        ValueError: a tensor missing, not a tensor, or of another shape than its parameter.
    """
    labels = list(names) if names else [f"parameter {i}" for i in range(len(params))]
    if given is None:
        chosen: list[Any] = list(params)
    elif isinstance(given, Mapping):
        if not names:
            raise ValueError("reference is a mapping, but the parameters have no names")
        floating = [p.is_floating_point() for p in params]
        missing = [n for n, needs in zip(names, floating, strict=True) if needs and n not in given]
        if missing:
            raise ValueError(f"reference has no tensor for {', '.join(missing)}")
        chosen = [given.get(n) for n in names]
    else:
        chosen = list(given)
        if len(chosen) != len(params):
            raise ValueError(
                f"reference must hold {len(params)} tensors, one per parameter, got {len(chosen)}"
            )
    copies: list[Tensor | None] = []
    for label, theta_0, p in zip(labels, chosen, params, strict=True):
        if not p.is_floating_point():
            copies.append(None)
            continue
        if not isinstance(theta_0, Tensor) or theta_0.shape != p.shape:
            got = tuple(theta_0.shape) if isinstance(theta_0, Tensor) else type(theta_0).__name__
            raise ValueError(f"reference of {label} must have shape {tuple(p.shape)}, got {got}")
        copy = torch.empty_like(p, dtype=dtype or p.dtype, requires_grad=False)
        copies.append(copy.copy_(placed(theta_0.detach(), p, f"reference of {label}")))
    return copies
