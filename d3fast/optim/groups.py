# SPDX-License-Identifier: Apache-2.0
"""Which weights are tracked: param groups for ``D3FusedSGD`` from a model.

``param_groups`` splits a model's parameters into a tracked group (pushed and projected) and a
plain one (ordinary SGD). By default the head's weights are tracked (arXiv 2411.09585, section 4);
``d3fast.optim.heads`` says which layer that is.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from d3fast.optim.heads import find_head

Track = str | Callable[[str, nn.Module, Tensor], bool]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = {"linear": (nn.Linear,), "conv+linear": (nn.Linear, *_CONVOLUTIONS)}


def _is_weight(name: str) -> bool:
    # What a weight is made of counts as the weight: weight norm's two tensors, a pruned one's.
    return name.startswith(("weight_", "parametrizations.weight.")) or name == "weight"


def _weights_of(modules: Sequence[nn.Module]) -> Callable[[str, nn.Module, Tensor], bool]:
    # By identity: a tied weight goes by the name of the module that holds it first.
    weights = {id(p) for m in modules for name, p in m.named_parameters() if _is_weight(name)}
    return lambda name, module, param: id(param) in weights


def _rule(model: nn.Module, track: Track) -> Callable[[str, nn.Module, Tensor], bool]:
    if callable(track):
        return track
    if track == "head":
        return _weights_of([find_head(model)[1]])
    if track in _LAYERS:
        return _weights_of([m for m in model.modules() if isinstance(m, _LAYERS[track])])
    if track == "all":
        return lambda name, module, param: True
    try:
        pattern = re.compile(track)
    except re.error as error:
        raise ValueError(f"track={track!r} is no valid regular expression: {error}") from None
    return lambda name, module, param: pattern.search(name) is not None


def param_groups(model: nn.Module, track: Track = "head") -> list[dict[str, Any]]:
    """Split a model's trainable parameters into a tracked group and a plain one.

    Args:
        model: any module. Parameters with ``requires_grad=False`` are left out.
        track: what to push and project: ``"head"`` (the head's weights), ``"linear"`` (weights
            of all linear layers), ``"conv+linear"`` (those of convolutions too), ``"all"``
            (every parameter), a regular expression searched for in parameter names, or a
            callable ``(name, module, param) -> bool``, ``module`` being the parameter's owner.
            The weights of a parametrized layer (weight norm) are the tensors they are made of.

    Returns:
        One or two dicts with ``params`` and ``param_names``. The plain one carries
        ``distance_weight=0`` and ``constraint=None``.

    Raises:
        ValueError: no trainable parameter is selected; the head cannot be found; an invalid
            regular expression; a lazy parameter that has no shape yet.

    Example:
        >>> from torch import nn
        >>> groups = param_groups(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        >>> [g["param_names"] for g in groups]
        [['2.weight'], ['0.weight', '0.bias', '2.bias']]
    """
    rule = _rule(model, track)
    owners = dict(model.named_modules())
    tracked: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for name, param in model.named_parameters():
        if is_lazy(param):
            raise ValueError(f"{name} has no shape yet: run the model on a batch first")
        if param.requires_grad:
            owner = owners[name.rpartition(".")[0]]
            (tracked if rule(name, owner, param) else plain)[name] = param
    if not tracked:
        raise ValueError(f"track={track!r} selects no trainable parameter of the model")
    groups: list[dict[str, Any]] = [
        {"params": list(tracked.values()), "param_names": list(tracked)}
    ]
    if plain:
        groups.append(
            {
                "params": list(plain.values()),
                "param_names": list(plain),
                "distance_weight": 0.0,
                "constraint": None,
            }
        )
    return groups
