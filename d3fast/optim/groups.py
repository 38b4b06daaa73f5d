# SPDX-License-Identifier: Apache-2.0
"""Which weights are tracked: param groups for ``D3FusedSGD`` from a model.

``param_groups`` splits a model's parameters into a tracked group (pushed and projected) and a
plain one (ordinary SGD); ``find_head`` names the layer that maps features to class scores,
whose weights D3 tracks by default (arXiv 2411.09585, section 4).
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

Track = str | Callable[[str, nn.Module, Tensor], bool]

# Names that classifiers give their last layer, as torchvision, timm and transformers use them.
_HEAD_NAMES = ("head", "heads", "fc", "classifier", "linear", "score", "last_linear", "logits")
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = {"linear": (nn.Linear,), "conv+linear": (nn.Linear, *_CONVOLUTIONS)}


def _scores_classes(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, _CONVOLUTIONS) and all(k == 1 for k in module.kernel_size)


def find_head(model: nn.Module) -> tuple[str, nn.Module]:
    """The classification head: the linear layer or 1x1 convolution that scores the classes.

    Looks, in this order, at what the model itself names (``get_classifier``, as timm models
    have), at the last such layer under a child with a conventional name (``head``, ``fc``,
    ``classifier``, ...), and at the last such layer of the model.

    Args:
        model: any module.

    Returns:
        The head's qualified name and the head.

    Raises:
        ValueError: the model has no linear layer and no 1x1 convolution.

    Example:
        >>> from torch import nn
        >>> find_head(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        ('2', Linear(in_features=8, out_features=2, bias=True))
    """
    named = {id(m): name for name, m in model.named_modules()}
    own = getattr(model, "get_classifier", None)
    declared = own() if callable(own) else None
    if isinstance(declared, nn.Module) and id(declared) in named and _scores_classes(declared):
        return named[id(declared)], declared
    layers = [(name, m) for name, m in model.named_modules() if _scores_classes(m)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no linear layer and no 1x1 convolution that could be its "
            "head; say what to track with a regex over parameter names"
        )
    conventional = [(n, m) for n, m in layers if n.split(".")[0] in _HEAD_NAMES]
    return (conventional or layers)[-1]


def _weights_of(modules: Sequence[nn.Module]) -> Callable[[str, nn.Module, Tensor], bool]:
    # By identity: a tied weight goes by the name of the module that holds it first.
    weights = {id(m.weight) for m in modules}
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

    Returns:
        One or two dicts with ``params`` and ``param_names``. The plain one carries
        ``distance_weight=0`` and ``constraint=None``.

    Raises:
        ValueError: no trainable parameter is selected; the head cannot be found; an invalid
            regular expression.

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
