# SPDX-License-Identifier: Apache-2.0
"""``D3FusedSGD``: SGD that pushes tracked weights away from where they started.

The rule of the step has two implementations: ``reference`` in plain PyTorch, which specifies it,
and ``fused`` through the C++/CUDA kernels. Either steps the local parts of DTensors (``sharded``).
Method: arXiv 2411.09585.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from d3fast.optim.anchors import References
from d3fast.optim.base import D3Optimizer
from d3fast.optim.options import backend_of
from d3fast.optim.tracking import Track


class D3FusedSGD(D3Optimizer):
    """Stochastic gradient descent on ``loss - distance_weight * ||theta - theta_0||_p``.

    Without ``track``, a group tracks its parameters of two or more dimensions whose reference is
    not all zero: biases and norm weights take the plain step of SGD, because on its norm sphere a
    bias of zeros would stay 0 for ever. The choice is made when the reference is taken and kept in
    the group's option ``track``, as positions. The parameters stay in the one param group that
    ``torch.optim.SGD`` would have, so that schedulers and checkpoints see what they expect; a state
    saved without that option was one that tracked every parameter, and continues so.

    With ``distance_weight=0, constraint=None`` a group is plain SGD and follows
    ``torch.optim.SGD``. Every keyword option can differ between param groups. The reference
    copy ``theta_0`` is taken when a group is added; a group that is tracked later only (its
    ``distance_weight`` starts at 0 and is scheduled up) needs ``reference=`` then.

    Args:
        params: parameters, ``(name, parameter)`` pairs or dicts defining groups; see
            ``d3fast.param_groups`` for groups that track a model's head.
        track: ``"all"``, or, for ``(name, parameter)`` pairs, a regular expression searched for in
            names, a callable ``(name, param) -> bool``, ``"head"``, ``"linear"`` or
            ``"conv+linear"``. The last three are decided from names and shapes (a weight of three
            or more dimensions counts as a convolution, a transposed one too); where those leave a
            choice, ``d3fast.param_groups(model, track=...)`` reads the modules.
        lr: learning rate, number or 1-element tensor.
        momentum: momentum factor.
        dampening: dampening of the momentum, from the second step on.
        weight_decay: L2 penalty.
        nesterov: Nesterov momentum; needs momentum > 0 and dampening = 0.
        maximize: ascend the loss; flips the loss gradient alone, not the push.
        distance_weight: w, weight of the distance, >= 0.
        distance_p: p >= 1 of the norm; fused kernels exist for 1 and 2.
        scope: ``"tensor"`` sums the distances of the tensors, ``"group"`` takes one norm over
            the group; also what a projection rescales together.
        constraint: ``"norm_sphere"``, ``"norm_ball"``, ``"distance_ball"``,
            ``"distance_floor"``, ``"distance_shell"`` or ``None``; Euclidean norms.
        radius: radius of the constraint; ``(lower, upper)`` for the shell; by default
            ``||theta_0||`` for the norm sets.
        radius_unit: ``"relative"`` to ``||theta_0||``, or ``"absolute"``.
        reference: theta_0 if it is not the current weights: one tensor per parameter, or a
            mapping from parameter names.
        reference_dtype: dtype the reference is kept in; the parameter's by default. The fused
            kernels also take bfloat16 beside float32.
        momentum_dtype: dtype of the momentum, likewise; float32 is finer beside a half type.
        reference_device: ``"cpu"`` keeps the reference in pinned host memory; each step of the
            reference backend copies it from there, one tensor (``scope``: one group) at a time.
        capturable: let the kernels read an ``lr`` or ``radius`` given as a 1-element CUDA
            tensor, so that a step can be captured in a CUDA graph; otherwise the host reads it.
        foreach: ``None`` or ``False``; accepted for code written for ``torch.optim.SGD``.
        fused: ``True`` is ``backend="fused"``.
        differentiable: ``False``; accepted for code written for ``torch.optim.SGD``.
        backend: ``"fused"``, ``"reference"``, or ``"auto"``: fused where a kernel exists,
            otherwise reference with a warning that says why.

    Parameters whose ``grad`` is ``None`` take no part in a step: neither in the norms nor in
    the projection. State per parameter: ``momentum_buffer``, ``reference`` (tracked groups),
    ``compensation`` (tracked weights of a half type: their rounding error), ``distance`` (float64
    scalar, tracked groups on the fused backend) and ``step`` (0 until the first step; for
    DTensors 1 from then on).

    Raises:
        ValueError: an option or parameter that cannot be used, named with its value.

    Example:
        >>> import torch, d3fast
        >>> model = torch.nn.Linear(4, 2)
        >>> opt = D3FusedSGD(d3fast.param_groups(model), lr=0.1, momentum=0.9)
        >>> opt.warm_start("random", generator=torch.Generator().manual_seed(0))
        >>> model(torch.ones(3, 4)).sum().backward()
        >>> opt.step()
        >>> list(opt.distances())
        ['weight']
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
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
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
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
