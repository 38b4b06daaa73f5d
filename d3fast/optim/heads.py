# SPDX-License-Identifier: Apache-2.0
"""The classification head of a model, whose weights D3 tracks by default.

``find_head`` reads a model's modules and their names and runs no forward pass. It uses the layer
that the model declares, then conventional names of classifiers, then the order of the layers. The
choice and its reason are logged by the logger ``d3fast`` at level INFO; a second candidate gives a
``UserWarning``, because a backdoor could stay in it.
"""

import logging
import re
import warnings
from collections.abc import Sequence

from torch import nn

Named = tuple[str, nn.Module]

_METHODS = ("get_classifier", "get_output_embeddings")  # of timm; of transformers' language models
# Names of the last layer, or of its block, in torchvision, timm and transformers.
_NAMES = (
    "head",
    "heads",
    "fc",
    "classifier",
    "linear",
    "score",
    "last_linear",
    "logits",
    "logits_proj",
)
# Words of a head's name ("cls_head"), and beginnings of words of other layers' names: auxiliary
# and distillation outputs, projections, layers before the classifier.
_FOR = re.compile(r"(^|_)(heads?|classifiers?|classification|cls|clf|scores?|logits)(_|$)")
_AGAINST = re.compile(r"(^|_)(aux|dist|proj|embed|pre(_|$))")
_REASONS = (
    "the last layer, no better candidate",
    "the last layer",
    "the last layer under a name that says so",
    "the last layer under a conventional name",
)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LISTS = (nn.ModuleList, nn.ModuleDict)

_log = logging.getLogger("d3fast")


def _scores_classes(module: nn.Module) -> bool:
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, _CONVOLUTIONS) and all(k == 1 for k in module.kernel_size)


def _idle(module: nn.Module, name: str) -> set[str]:
    """Return the names of layer copies that peft keeps out of use (modules_to_save)."""
    found = set()
    for at, m in module.named_modules(prefix=name):
        copies = getattr(m, "modules_to_save", None)
        if isinstance(copies, nn.ModuleDict):
            active = set(getattr(m, "active_adapters", copies))
            found |= {_join(at, "modules_to_save", copy) for copy in set(copies) - active}
            if active & set(copies):
                found.add(_join(at, "original_module"))
    return found


def _layers(module: nn.Module, name: str) -> list[Named]:
    """Return the layers that could score classes, by qualified name.

    Layers inside a parametrization, LoRA's factors and copies out of use are left out.
    """
    idle = _idle(module, name)
    return [
        (at, m)
        for at, m in module.named_modules(prefix=name)
        if _scores_classes(m)
        and not any(part == "parametrizations" or part[:5] == "lora_" for part in at.split("."))
        and not any(at == other or at.startswith(f"{other}.") for other in idle)
    ]


def _classes(layer: nn.Module) -> object:
    return getattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels")


def _declared(module: nn.Module, name: str, method: str) -> list[Named]:
    """Return the heads that the model declares: a layer, or the last one of a block, each."""
    own = getattr(module, method, None)
    given = own() if callable(own) else None
    names = {id(m): at for at, m in module.named_modules(prefix=name)}
    found = []
    for part in given if isinstance(given, tuple | list | nn.ModuleList) else (given,):
        if isinstance(part, nn.Module) and id(part) in names:
            found += _layers(part, names[id(part)])[-1:]
    return found


def _wrapped(module: nn.Module) -> Named | None:
    """Return the only child with parameters if the module is a wrapper around it."""
    children = [c for c in module.named_children() if next(c[1].parameters(), None) is not None]
    if len(children) != 1 or _scores_classes(module):
        return None
    only = children[0]
    return None if isinstance(only[1], _LISTS) or _scores_classes(only[1]) else only


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)


def _last_layers(module: nn.Module, name: str) -> list[tuple[str, Named]]:
    """Return (name, last layer) of every child, and of every entry of a list of modules."""
    found = []
    for child, m in module.named_children():
        for entry, part in m.named_children() if isinstance(m, _LISTS) else [("", m)]:
            layers = _layers(part, _join(name, child, entry))
            found += [(child, layers[-1])] if layers else []
    return found


def _plain_words(child: str) -> str:
    """Return a name in lower case with separate words: aux_logits for AuxLogits."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", child).lower()


def _rank(child: str) -> int:
    """Return how likely a child is a head by its name, as an index of ``_REASONS``."""
    words = _plain_words(child)
    if child.strip("_") in _NAMES:  # "_fc" of EfficientNet-PyTorch
        return 3
    if _AGAINST.search(words):
        return 0
    return 2 if _FOR.search(words) else 1


def _heads(module: nn.Module, name: str) -> tuple[list[Named], str]:
    """Return the head, followed by other candidates, and the reason."""
    for method in _METHODS:
        declared = _declared(module, name, method)
        if declared:
            return declared, f"named by {method}"
    inner = _wrapped(module)
    if inner is not None:
        return _heads(inner[1], _join(name, inner[0]))
    candidates = _last_layers(module, name)
    if not candidates:
        return [(name, module)], "the whole model"
    rank = max(_rank(child) for child, _ in candidates)
    head = [layer for child, layer in candidates if _rank(child) == rank][-1]
    rivals = [
        layer
        for child, layer in candidates
        if layer[1] is not head[1]
        and _classes(layer[1]) == _classes(head[1])
        and (_rank(child) == 3 or _FOR.search(_plain_words(child)))
        and "aux" not in child.lower()  # seen in training only
    ]
    return [head, *rivals], _REASONS[rank]


def head_by_name(names: Sequence[str], layers: Sequence[str]) -> tuple[str | None, str]:
    """Return the head of a model of which only names are known, as ``find_head`` would choose it.

    Args:
        names: names of all parameters, in order.
        layers: names of the layers that could score classes, in order.

    Returns:
        The name of the head and the reason; ``None`` where the names leave a choice.
    """
    if "" in layers:
        return "", "the whole model"
    prefix = ""
    children = {name.partition(".")[0] for name in names}
    while len(children) == 1 and prefix + min(children) not in {*names, *layers}:
        prefix += f"{min(children)}."
        children = {name.removeprefix(prefix).partition(".")[0] for name in names}
    last = {layer.removeprefix(prefix).partition(".")[0]: layer for layer in layers}
    if not last:
        return None, "no name is that of a layer which could be the head"
    rank = max(map(_rank, last))
    best = [layer for child, layer in last.items() if _rank(child) == rank]
    if rank == 0 or (rank == 1 and not all(child.isdigit() for child in children)):
        return None, "no layer has a conventional name of a head"
    rivals = [
        layer
        for child, layer in last.items()
        if layer != best[-1] and _FOR.search(_plain_words(child)) and "aux" not in child.lower()
    ]
    if rank > 1 and (len(best) > 1 or rivals):
        return None, f"{', '.join(dict.fromkeys([*best, *rivals]))} may all be heads"
    return best[-1], _REASONS[rank]


def find_head(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the classification head: the linear layer or 1x1 convolution that scores the classes.

    A wrapper module (``DataParallel``, a normalisation in front) is skipped. The order of
    preference: the layer that the model declares (``get_classifier`` of timm models,
    ``get_output_embeddings`` of language models of transformers); the last such layer under a
    child with a conventional name (``head``, ``fc``, ``classifier``, ...), then under a child whose
    name contains one (``cls_head``); the last such layer of the model. Layers with names of
    auxiliary, distillation and projection outputs come last. The choice and its reason are logged
    by ``logging.getLogger("d3fast")`` at level INFO.

    Args:
        model: any module.

    Returns:
        The head's qualified name and the head.

    Warns:
        UserWarning: another layer, named like a head too, gives as many classes (distillation,
            early exits).

    Raises:
        ValueError: the model has no linear layer and no 1x1 convolution.

    Example:
        >>> from torch import nn
        >>> find_head(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        ('2', Linear(in_features=8, out_features=2, bias=True))
    """
    if not _layers(model, ""):
        raise ValueError(
            f"{type(model).__name__} has no linear layer and no 1x1 convolution that could be its "
            "head; say what to track with a regex over parameter names"
        )
    heads, reason = _heads(model, "")
    name, head = heads[0]
    _log.info("head: %r (%s), %s", name, type(head).__name__, reason)
    if len(heads) > 1:
        names = [at for at, _ in heads]
        pattern = "|".join(re.escape(at) for at in names)
        warnings.warn(
            f"{', '.join(names)} may all be heads, {name!r} is taken; "
            f"track=r'^({pattern})\\.weight' tracks them all",
            stacklevel=2,
        )
    return name, head
