# SPDX-License-Identifier: Apache-2.0
"""Param groups for ``D3FusedSGD`` from a model: tracked weights and the others.

``param_groups`` splits a model's parameters into a tracked group (pushed and projected) and a
plain one (ordinary SGD). By default the head's weights are tracked (arXiv 2411.09585, section 4);
``d3fast.optim.heads`` says which layer that is.
"""

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from d3fast.optim.heads import find_head
from d3fast.optim.tracking import search

Track = str | Callable[[str, nn.Module, Tensor], bool]

_FACTOR = re.compile(r"\.lora_(embedding_)?[AB]\.")  # of a LoRA adapter, as peft names them
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS: Mapping[str, tuple[type[nn.Module], ...]] = {
    "linear": (nn.Linear,),
    "conv+linear": (nn.Linear, *_CONVOLUTIONS),
}


def _kinds(track: str) -> tuple[type[nn.Module], ...]:
    """Return the layer types of a name, with the linear layer of GPT-2.

    That layer is ``transformers.pytorch_utils.Conv1D``: x W + b with W transposed. A model that has
    one has imported the module; d3fast does not import it.
    """
    theirs = getattr(sys.modules.get("transformers.pytorch_utils"), "Conv1D", None)
    return _LAYERS[track] if theirs is None else (*_LAYERS[track], theirs)


def _is_weight(name: str) -> bool:
    # The tensors of a reparametrized weight count as the weight: weight norm, pruning.
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
        kinds = _kinds(track)
        return _weights_of([m for m in model.modules() if isinstance(m, kinds)])
    if track == "all":
        return lambda name, module, param: True
    matches = search(track)
    return lambda name, module, param: matches(name)


def _names(model: nn.Module) -> dict[int, list[str]]:
    """Return all names of every parameter, by identity; a tied one has several."""
    names: dict[int, list[str]] = {}
    for name, param in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(param), []).append(name)
    return names


def _warn_of_tied_embeddings(
    tracked: Iterable[Sequence[str]], owners: Mapping[str, nn.Module]
) -> None:
    """Warn where tracked weights are input embeddings too."""
    for tied in tracked:
        embeddings = [n for n in tied if isinstance(owners[n.rpartition(".")[0]], nn.Embedding)]
        layers = [n for n in tied if n not in embeddings]
        if embeddings and layers:
            has_mlps = any(".mlp." in name for name in owners)
            instead = (
                r"track=r'\.mlp\..*weight$' tracks" if has_mlps else "track= takes a regex for"
            )
            warnings.warn(
                f"{layers[0]} is tied to {embeddings[0]}: tracking it, its warm start included, "
                f"moves the input embeddings as well; {instead} the MLP layers instead",
                stacklevel=3,
            )
            return


def _warn_of_factors(tracked: Iterable[str]) -> None:
    """Warn where factors of a LoRA adapter are tracked as if they were weights."""
    factors = [name for name in tracked if _FACTOR.search(name)]
    if factors:
        warnings.warn(
            f"{len(factors)} LoRA factors are tracked one by one, {factors[0]} first: their "
            "distances are not that of the weight they make, and a factor of zeros stays 0 on its "
            "norm sphere; d3fast.integrations.peft.MergedDistance is the distance of the weight",
            stacklevel=3,
        )


def param_groups(model: nn.Module, track: Track = "head") -> list[dict[str, Any]]:
    """Split a model's trainable parameters into a tracked group and a plain one.

    A tied parameter is listed once, under its first name, and is tracked if any of its names is
    selected.

    Args:
        model: any module. Parameters with ``requires_grad=False`` are left out.
        track: the weights to push and project: ``"head"`` (the head's weights), ``"linear"``
            (weights of all linear layers, GPT-2's ``Conv1D`` included), ``"conv+linear"``
            (weights of convolutions too), ``"all"`` (every parameter), a regular expression
            searched for in parameter names, or a callable ``(name, module, param) -> bool``,
            ``module`` being the owner of the parameter. The weights of a parametrized layer
            (weight norm) are the tensors they are computed from.

    Returns:
        One or two dicts with ``params`` and ``param_names``. The tracked one carries
        ``track="all"``, the plain one ``distance_weight=0`` and ``constraint=None``.

    Warns:
        UserWarning: the head, or another layer selected by its kind, is tied to an embedding,
            as the head of most small language models is; factors of LoRA adapters are selected.

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
    owners = dict(model.named_modules(remove_duplicate=False))
    names = _names(model)
    tracked: dict[str, Tensor] = {}
    plain: dict[str, Tensor] = {}
    for name, param in model.named_parameters():
        if is_lazy(param):
            raise ValueError(f"{name} has no shape yet: run the model on a batch first")
        if param.requires_grad:
            chosen = any(rule(n, owners[n.rpartition(".")[0]], param) for n in names[id(param)])
            (tracked if chosen else plain)[name] = param
    if not tracked:
        adapters = any(_FACTOR.search(name) for name in plain)
        raise ValueError(
            f"track={track!r} selects no trainable parameter of the model"
            + "; for LoRA adapters see d3fast.integrations.peft" * adapters
        )
    _warn_of_factors(tracked)
    if track == "head" or track in _LAYERS:
        _warn_of_tied_embeddings([names[id(p)] for p in tracked.values()], owners)
    groups: list[dict[str, Any]] = [
        {"params": list(tracked.values()), "param_names": list(tracked), "track": "all"}
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
