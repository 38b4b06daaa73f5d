# SPDX-License-Identifier: Apache-2.0
"""``D3FusedAdamW``: AdamW that pushes tracked weights away from where they started.

Only the rule of the step (``rules.adamw``) differs from ``D3FusedSGD``. Methods: arXiv 2411.09585
and arXiv 1711.05101.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.anchors import References
from d3fast.optim.base import D3Optimizer
from d3fast.optim.options import backend_of
from d3fast.optim.tracking import Track


class D3FusedAdamW(D3Optimizer):
    """AdamW on ``loss - distance_weight * ||theta - theta_0||_p``.

    With ``distance_weight=0, constraint=None`` a group follows ``torch.optim.AdamW``. Parameters
    are tracked, and the options from ``maximize`` on work, as in ``D3FusedSGD``. By the push u of
    the distance the weights move by ``lr * u`` beside the adaptive step, as by decoupled weight
    decay; without ``decoupled_push`` it enters the gradient, and so both moments.

    Args:
        params: parameters, ``(name, parameter)`` pairs or dicts defining groups; see
            ``d3fast.param_groups`` for groups that track a model's head.
        lr: learning rate, number or 1-element tensor.
        betas: decay of the first and of the second moment, each in [0, 1).
        eps: added to the root of the second moment.
        weight_decay: decoupled weight decay.
        amsgrad: ``False``; accepted for code written for ``torch.optim.AdamW``.
        decoupled_push: add the push beside the adaptive step, or else to the gradient.
        maximize: ascend the loss; flips the loss gradient alone, not the push.
        distance_weight: w, weight of the distance, >= 0.
        distance_p: p >= 1 of the norm.
        scope: ``"tensor"`` or ``"group"``: what one norm is taken over.
        constraint: set that the weights are projected onto, or ``None``.
        radius: radius of the constraint.
        radius_unit: ``"relative"`` to ``||theta_0||``, or ``"absolute"``.
        reference: theta_0 if it is not the current weights.
        reference_dtype: dtype the reference is kept in; the parameter's by default.
        reference_device: ``"cpu"`` keeps the reference in pinned host memory.
        momentum_dtype: dtype of the first moment; the parameter's by default. The second moment is
            float32 beside half types, which would round its changes away.
        capturable: let the kernels read an ``lr`` or ``radius`` on the device.
        backend: ``"fused"``, ``"reference"`` or ``"auto"``.
        track: ``"all"``, or which parameters are tracked, by name.
        foreach: ``None`` or ``False``; accepted for code written for ``torch.optim.AdamW``.
        fused: ``True`` is ``backend="fused"``.
        differentiable: ``False``; accepted for code written for ``torch.optim.AdamW``.

    State per parameter: ``exp_avg``, ``exp_avg_sq``, ``step`` (float32, on the parameter's device),
    as ``torch.optim.AdamW`` names them, and ``reference``, ``compensation`` and ``distance`` as
    ``D3FusedSGD``. A state of ``torch.optim.AdamW`` can be loaded.

    Raises:
        ValueError: an option or parameter that cannot be used, named with its value.

    Example:
        >>> import torch, d3fast
        >>> model = torch.nn.Linear(4, 2)
        >>> opt = d3fast.D3FusedAdamW(d3fast.param_groups(model), lr=0.1)
        >>> model(torch.ones(3, 4)).sum().backward()
        >>> opt.step()
        >>> sorted(opt.state[model.weight])
        ['distance', 'exp_avg', 'exp_avg_sq', 'reference', 'step']
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        decoupled_push: bool = True,
        maximize: bool = False,
        distance_weight: float = 1.0,
        distance_p: float = 2.0,
        scope: str = "tensor",
        constraint: str | None = "norm_sphere",
        radius: float | Tensor | tuple[float | Tensor, float | Tensor] | None = None,
        radius_unit: str = "relative",
        reference: References | None = None,
        reference_dtype: torch.dtype | None = None,
        reference_device: str | None = None,
        momentum_dtype: torch.dtype | None = None,
        capturable: bool = False,
        backend: str = "auto",
        track: Track | Sequence[int] | None = None,
        foreach: bool | None = None,
        fused: bool | None = None,
        differentiable: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "decoupled_push": decoupled_push,
            "maximize": maximize,
            "distance_weight": distance_weight,
            "distance_p": distance_p,
            "scope": scope,
            "constraint": constraint,
            "radius": radius,
            "radius_unit": radius_unit,
            "reference_dtype": reference_dtype,
            "reference_device": reference_device,
            "momentum_dtype": momentum_dtype,
            "capturable": capturable,
            "backend": backend_of(backend, foreach, fused, differentiable),
            "track": track,
        }
        super().__init__(params, defaults, reference)
